"""Making a gallery from a FAISS index file: unlike a table, it is copied, since such a file cannot be shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.files import lines_of
from nobackfill.gallery.adopting import AdoptionPlan
from nobackfill.gallery.lineage import Generation
from nobackfill.gallery.stores.address import without_credentials
from nobackfill.gallery.stores.base import Floats, Payload, Store

if TYPE_CHECKING:
    from faiss import Index

BATCH = 8192
LOOKED_AT = 1000  # vectors whose norms are compared
SAME_NORM, NEARLY_SAME_NORM = 1e-3, 0.1  # relative differences; compressing changes norms, too


def plan_copy(
    url: str, name: str, index: Path, ids: Path | None = None, *, fingerprint: str | None = None
) -> AdoptionPlan:
    """Look at an index file and say what will be made of it.

    Args:
        url: of the gallery that is to be made, any store.
        name: of the model that made the vectors.
        index: written by `faiss.write_index`.
        ids: text file with the id of each vector, one per line; None: the numbers of an `IndexIDMap`, else 0, 1, ….
        fingerprint: of that model; None: its name stands for it.

    Raises:
        GalleryError: if the files cannot be read, do not fit each other, or the index cannot give its vectors back.
    """
    opened = _read(index)
    count, dim = int(opened.ntotal), int(opened.d)
    names = _names(opened, ids)
    if len(names) != count:
        raise GalleryError(f"--ids {ids}: expected {count} lines, one for each vector of {index}, found {len(names)}")
    generation = Generation.named(name, dim)
    if fingerprint is not None:
        generation = generation.model_copy(update={"fingerprint": fingerprint})
    notes = [f"the {count} vectors are copied: what is added to {index.name} later is not in the gallery"]
    if (spread := _norms(opened, count)) is not None:
        notes.append(
            f"its vectors have norms from {spread[0]:.3g} to {spread[1]:.3g}; a gallery compares directions "
            f"(cosine), so its results differ from those of {index.name}, which compares by {_metric(opened)}"
        )
    if not _exact(opened):
        notes.append(f"{index.name} is compressed: its vectors come back as approximations, and stay so until replaced")

    def carry_out() -> Store:
        from nobackfill.gallery.gallery import Gallery

        return Gallery.create(url, generation, _batches(opened, names)).store

    return AdoptionPlan(without_credentials(url), generation, [], [], notes, carry_out)


def _read(path: Path) -> Index:
    import faiss

    if not path.is_file():
        raise GalleryError(f"--index {path}: no such file")
    try:
        opened = faiss.read_index(str(path))
        inner = _inner(opened)
        if isinstance(inner, faiss.IndexIVF):
            inner.make_direct_map()
        if opened.ntotal:
            inner.reconstruct_n(0, 1)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rpartition("Error: ")[2][:160] or "unknown"
        raise GalleryError(
            f"--index {path}: its vectors cannot be read ({reason}); expected a file of faiss.write_index whose index "
            "stores vectors"
        ) from None
    return opened


def _inner(opened: Index) -> Index:
    import faiss

    is_map = isinstance(opened, faiss.IndexIDMap | faiss.IndexIDMap2)
    return faiss.downcast_index(opened.index) if is_map else opened  # lives as long as `opened`, which owns it


def _names(opened: Index, ids: Path | None) -> list[str]:
    import faiss

    if ids is not None:
        try:
            return lines_of(ids.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise GalleryError(f"--ids {ids}: cannot be read as text ({type(error).__name__})") from None
    if _inner(opened) is not opened:
        return [str(number) for number in faiss.vector_to_array(opened.id_map).tolist()]
    return [str(number) for number in range(opened.ntotal)]


def _exact(opened: Index) -> bool:
    import faiss

    inner = _inner(opened)
    return isinstance(inner, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexHNSWFlat)


def _metric(opened: Index) -> str:
    import faiss

    names = {faiss.METRIC_INNER_PRODUCT: "inner product", faiss.METRIC_L2: "Euclidean distance"}
    return names.get(opened.metric_type, "another metric")


def _norms(opened: Index, count: int) -> tuple[float, float] | None:
    """The least and the largest norm of some of the vectors; None if only their directions differ."""
    places = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int)).tolist()
    inner = _inner(opened)
    norms = [float(np.linalg.norm(inner.reconstruct_n(place, 1))) for place in places]
    low, high = min(norms, default=0.0), max(norms, default=0.0)
    return (low, high) if high - low > high * (SAME_NORM if _exact(opened) else NEARLY_SAME_NORM) else None


def _batches(opened: Index, names: list[str]) -> Iterator[tuple[list[str], Floats, list[Payload]]]:
    inner = _inner(opened)
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        yield some, np.ascontiguousarray(inner.reconstruct_n(start, len(some)), np.float32), [{} for _ in some]
