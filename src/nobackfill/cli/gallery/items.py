"""Items and queries of a gallery on the command line: from a data set by a model, or from files of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.arrays import Array, unit
from nobackfill.cli.gallery.options import require_source
from nobackfill.cli.source import open_data
from nobackfill.cli.vectors import read_array, read_texts
from nobackfill.errors import ConfigError, DataError, visible
from nobackfill.gallery import ArrayEmbedder, Embedder, ExpectedCurve, Gallery, Generation, RunFolderEmbedder
from nobackfill.gallery.embedders import SentenceEmbedder
from nobackfill.gallery.writing import check_ids
from nobackfill.models.roles import encode_as
from nobackfill.models.sentence_encoder import TextFunction

if TYPE_CHECKING:
    from nobackfill.data.samples import Inputs, Samples
    from nobackfill.models import Encoder

BATCH = 4096
DECODERS = 2  # processes that decode image files, unless --workers says otherwise
Batch = tuple[list[str], Array, list[dict[str, object]]]


@dataclass(frozen=True)
class DataItems:
    """A data set as gallery items.

    Attributes:
        ids: the file of each, or its position in an array.
        samples: what the encoder takes.
        payloads: label and class name of each; empty where there are no classes.
        workers: processes that decode image files.
    """

    ids: list[str]
    samples: Inputs
    payloads: list[dict[str, object]]
    workers: int


def load_encoder(run: Path | None) -> Encoder | None:
    """The encoder of a run folder, if there is one; a model known by its `--name` needs no library of models."""
    if run is None:
        return None
    from nobackfill.models import load

    return load(run)


def open_items(data: str, split: str, workers: int | None, encoder: Encoder) -> DataItems:
    """The items that `--data` names, as samples for this encoder.

    `images:DIR` and `texts:FILE[#COLUMN[,ID_COLUMN]]` need no classes; for all else see `cli.source.open_data`.
    """
    kind, _, place = data.partition(":")
    if kind in ("images", "texts"):
        return _unlabelled(kind, place, DECODERS if workers is None else workers, encoder)
    try:
        dataset, processes = open_data(data, split, "fail", workers)
    except DataError as error:
        if kind != "folder":
            raise
        raise DataError(f"{error}; for images without classes give --data {visible(f'images:{place}')}") from None
    names = dataset.class_names
    payloads = [{"label": int(label), "class": names[label]} for label in dataset.labels]
    return DataItems(list(dataset.ids), dataset.inputs(encoder.spec.modality), payloads, processes)


def _unlabelled(kind: str, place: str, workers: int, encoder: Encoder) -> DataItems:
    from nobackfill.data.unlabelled import load_image_files, load_text_column

    samples: Samples
    if kind == "images":
        samples = load_image_files(Path(place))
        ids = list(samples.ids)
    else:
        path, _, columns = place.rpartition("#") if "#" in place else (place, "", "")
        column, _, id_column = columns.partition(",")
        ids, samples = load_text_column(Path(path), column or "text", id_column or None)
    return DataItems(ids, samples.inputs(encoder.spec.modality), [{} for _ in ids], workers)


def embedded_batches(encoder: Encoder, items: DataItems) -> Iterator[Batch]:
    """All items, some at a time: ids, vectors, payloads."""
    for start in range(0, len(items.ids), BATCH):
        some = slice(start, start + BATCH)
        vectors = encode_as(encoder, items.samples[some], "document", items.workers)
        yield items.ids[some], vectors, items.payloads[some]


def read_vectors(path: Path, ids: Path | None) -> tuple[list[str], Array]:
    """`--vectors` and `--ids`: a .npy array, mapped, and a text file with one id per line (default: 0, 1, …)."""
    array = read_array(path, "--vectors")
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
        raise ConfigError(f"--vectors {path}: expected floats [n, dim], found {array.dtype} {list(array.shape)}")
    if ids is None:
        return [str(row) for row in range(len(array))], array
    names = read_texts(ids, len(array), "--ids")
    check_ids(names)
    return names, array


def as_stored(encoder: Encoder | None, rows: Array) -> Array:
    """Rows of a file as a gallery holds them: a model that takes vectors embeds them, all others have made them."""
    return encoder.encode(rows) if encoder is not None and encoder.spec.modality == "vector" else np.asarray(rows)


def array_batches(path: Path, ids: list[str], array: Array, encoder: Encoder | None) -> Iterator[Batch]:
    """All rows of `--vectors`, some at a time; no payload. All are looked at before the first is written.

    Raises:
        DataError: naming the first row of the file that is zero or not finite.
    """
    parts = [slice(start, start + BATCH) for start in range(0, len(ids), BATCH)]
    for some in parts:
        unit(array[some], f"--vectors {path}", numbers=np.arange(some.start, min(some.stop, len(ids))))
    return ((ids[some], as_stored(encoder, array[some]), [{} for _ in ids[some]]) for some in parts)


def any_there(gallery: Gallery, names: list[str]) -> bool:
    """Whether one of these ids is in the gallery; only where none is, all are looked up."""
    return any(gallery.store.versions(names[start : start + BATCH]) for start in range(0, len(names), BATCH))


def new_embedder(
    gallery: Gallery,
    run: Path | None,
    name: str | None,
    data: str | None,
    split: str,
    vectors: Path | None,
    ids: Path | None,
    workers: int | None,
    cluster: str | None = None,
) -> tuple[Generation, Embedder]:
    """The model that `--run` or `--name` means, and what embeds items by it: `--vectors`, or else a data set."""
    require_source(data, vectors, ids)
    encoder = load_encoder(run)
    if vectors is not None:
        names, rows = read_vectors(vectors, ids)
        if ids is None and gallery.count() and not any_there(gallery, names):
            raise ConfigError(f"{gallery.store.url}: none of the ids 0, 1, … is in the gallery; give --ids")
        older = gallery.manifest.generations
        generation = Generation.of(encoder.spec) if encoder else Generation.named(name or "", rows.shape[1], older)
        return generation, ArrayEmbedder(names, rows, generation.fingerprint, lambda some: as_stored(encoder, some))
    if data is None and gallery.manifest.source is not None:
        split, _, data = gallery.manifest.source.partition(" ")
    if encoder is None or run is None:
        raise ConfigError("--vectors is missing: a model given by --name cannot embed anything")
    if data is None:
        raise ConfigError("give --data or --vectors: this gallery has no data source on record")
    items = open_items(data, split, workers, encoder)
    if isinstance(encoder, TextFunction):
        if cluster is not None:
            raise ConfigError(f"--ray: works with run folders, but --model {run} is not one; leave it out")
        sentences = SentenceEmbedder(encoder, items.samples, items.ids)
        return sentences.generation, sentences
    embedder = RunFolderEmbedder(run, items.samples, items.ids, workers=items.workers, cluster=cluster, encoder=encoder)
    return embedder.generation, embedder


def query_vectors(
    query: list[str] | None, run: Path | None, name: str | None, vectors: Path | None
) -> tuple[list[str], Array, str]:
    """Titles and vectors of the queries, and the fingerprint of their model."""
    encoder = load_encoder(run)
    fingerprint = encoder.spec.fingerprint if encoder else Generation.named(name or "", 1).fingerprint
    if vectors is not None:
        if query:
            raise ConfigError("give queries or --vectors, not both")
        names, rows = read_vectors(vectors, None)
        return names, as_stored(encoder, rows), fingerprint
    if encoder is None or not query:
        raise ConfigError("give image files (or texts) and --run, or --vectors")
    return query, encode_as(encoder, query, "query"), fingerprint


def curve_line(curve: ExpectedCurve) -> str:
    """Expected top-1 at each fraction."""
    return ", ".join(f"{part:.0%} {top1:.1%}" for part, top1 in zip(curve.fractions, curve.top1, strict=True))
