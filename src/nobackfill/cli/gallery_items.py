"""Items of a gallery on the command line: from images by a model, or from files of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nobackfill.cli.source import open_data
from nobackfill.cli.vectors import read_array, read_texts
from nobackfill.errors import ConfigError, DataError
from nobackfill.gallery import Embedded, Generation

if TYPE_CHECKING:
    from nobackfill.data import ImageSet
    from nobackfill.models import Encoder

BATCH = 4096


@dataclass(frozen=True)
class Images:
    """The images of a data set as gallery items: an id is the file, or the place in an array."""

    images: ImageSet
    workers: int

    @property
    def ids(self) -> list[str]:
        """One for each image."""
        held = self.images.images
        return [str(place) if isinstance(held, np.ndarray) else str(held[place]) for place in range(len(self.images))]

    def payloads(self) -> list[dict[str, Any]]:
        """Label and class name."""
        names = self.images.class_names
        return [{"label": int(label), "class": names[label]} for label in self.images.labels]


def open_images(data: str, split: str, workers: int | None) -> Images:
    """See `cli.source.open_data`."""
    images, processes = open_data(data, split, "fail", workers)
    return Images(images, processes)


def embedded_batches(encoder: Encoder, items: Images) -> Iterator[tuple[list[str], Any, list[Any]]]:
    """All items, some at a time: ids, vectors, payloads."""
    ids, payloads = items.ids, items.payloads()
    for start in range(0, len(ids), BATCH):
        some = slice(start, min(start + BATCH, len(ids)))
        vectors = encoder.encode_set(items.images.take(np.arange(some.start, some.stop)), items.workers)
        yield ids[some], vectors, payloads[some]


def image_embedder(encoder: Encoder, items: Images) -> Any:
    """For a backfill: item ids to vectors; images that are gone or do not decode are named."""
    place_of = {name: place for place, name in enumerate(items.ids)}

    def embed(ids: list[str]) -> Embedded:
        missing = {name: "not in --data" for name in ids if name not in place_of}
        known = [name for name in ids if name in place_of]
        try:
            return Embedded(known, _encode(encoder, items, known, place_of), missing)
        except DataError:
            missing |= _unreadable(items, known, place_of)
            sound = [name for name in known if name not in missing]
            if len(sound) == len(known):  # the fault is not in a file
                raise
            return Embedded(sound, _encode(encoder, items, sound, place_of), missing)

    return embed


def _encode(encoder: Encoder, items: Images, ids: list[str], place_of: dict[str, int]) -> Any:
    chosen = np.array([place_of[name] for name in ids], np.int64)
    if not len(chosen):
        return np.empty((0, encoder.spec.dim), np.float32)
    return encoder.encode_set(items.images.take(chosen), items.workers)


def _unreadable(items: Images, ids: list[str], place_of: dict[str, int]) -> dict[str, str]:
    from nobackfill.data.preprocessing import read_image

    faults = {}
    for name in ids:
        source = items.images.images[place_of[name]]
        if not isinstance(source, np.ndarray):
            try:
                read_image(source)
            except DataError as error:
                faults[name] = str(error)
    return faults


def read_vectors(path: Path, ids: Path | None) -> tuple[list[str], Any]:
    """`--vectors` and `--ids`: a .npy array, mapped, and a text file with an id a line (default: 0, 1, …)."""
    array = read_array(path, "--vectors")
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ConfigError(f"--vectors {path}: expected floats [n, dim], found {array.dtype} {list(array.shape)}")
    names = [str(place) for place in range(len(array))] if ids is None else read_texts(ids, len(array), "--ids")
    return names, array


def array_batches(ids: list[str], array: Any) -> Iterator[tuple[list[str], Any, list[Any]]]:
    """All rows, some at a time; no payload."""
    for start in range(0, len(ids), BATCH):
        some = slice(start, start + BATCH)
        yield ids[some], array[some], [{} for _ in ids[some]]


def array_embedder(ids: list[str], array: Any) -> Any:
    """For a backfill: item ids to rows of a file of vectors."""
    place_of = {name: place for place, name in enumerate(ids)}

    def embed(wanted: list[str]) -> Embedded:
        missing = {name: "not in --ids" for name in wanted if name not in place_of}
        known = [name for name in wanted if name in place_of]
        return Embedded(known, np.asarray(array[[place_of[name] for name in known]]), missing)

    return embed


def named_generation(name: str, dim: int, answers: tuple[str, ...] = ()) -> Generation:
    """A model known by name only, for vectors from files: the name stands for its fingerprint."""
    return Generation(name=name, dim=dim, fingerprint=f"name:{name}", answers=answers)
