"""Items of a gallery on the command line: from images by a model, or from files of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nobackfill.cli.source import open_data
from nobackfill.cli.vectors import read_array, read_texts
from nobackfill.errors import ConfigError
from nobackfill.gallery import Embedded, Generation

if TYPE_CHECKING:
    from nobackfill.data import Samples
    from nobackfill.models import Encoder

BATCH = 4096


@dataclass(frozen=True)
class Images:
    """The images of a data set as gallery items: an id is the file, or the place in an array."""

    images: Samples
    workers: int

    @property
    def ids(self) -> list[str]:
        """One for each image."""
        return list(self.images.ids)

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


class ImageEmbedder:
    """For a backfill: item ids to vectors; images that are gone or do not decode are named.

    Args:
        encoder: of the new model.
        items: where the images are.
        run: its run folder.
        cluster: address of a Ray cluster to embed on; None embeds here.
    """

    def __init__(self, encoder: Encoder, items: Images, run: Path, cluster: str | None) -> None:
        self.encoder, self.items, self.run, self.cluster = encoder, items, run, cluster
        self.place_of = {name: place for place, name in enumerate(items.ids)}

    def __call__(self, ids: list[str]) -> Embedded:
        """One batch, here."""
        known = self._known(ids)
        if not known:
            return self._embedded(ids, known, ([], np.empty((0, self.encoder.spec.dim), np.float32), {}))
        from nobackfill.models.cluster import encode_sound

        return self._embedded(ids, known, encode_sound(self.encoder, self._samples(known), self.items.workers))

    def stream(self, batches: list[list[str]]) -> Iterator[Embedded]:
        """All batches in their order, on the cluster if there is one."""
        if self.cluster is None:
            yield from map(self, batches)
            return
        from nobackfill.models.cluster import encode_on_cluster

        known = [self._known(ids) for ids in batches]
        made = encode_on_cluster(self.run, [self._samples(some) for some in known if some], self.cluster)
        for ids, some in zip(batches, known, strict=True):
            yield self._embedded(ids, some, next(made)) if some else self(ids)

    def _known(self, ids: list[str]) -> list[str]:
        return [name for name in ids if name in self.place_of]

    def _samples(self, ids: list[str]) -> Any:
        chosen = np.array([self.place_of[name] for name in ids], np.int64)
        return self.items.images.take(chosen).inputs(self.encoder.spec.modality)

    def _embedded(self, ids: list[str], known: list[str], made: Any) -> Embedded:
        sound, vectors, faults = made
        missing = {name: "not in --data" for name in ids if name not in self.place_of}
        missing |= {known[place]: reason for place, reason in faults.items()}
        return Embedded([known[place] for place in sound], vectors, missing)


def read_vectors(path: Path, ids: Path | None) -> tuple[list[str], Any]:
    """`--vectors` and `--ids`: a .npy array, mapped, and a text file with an id a line (default: 0, 1, …)."""
    array = read_array(path, "--vectors")
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ConfigError(f"--vectors {path}: expected floats [n, dim], found {array.dtype} {list(array.shape)}")
    names = [str(place) for place in range(len(array))] if ids is None else read_texts(ids, len(array), "--ids")
    return names, array


def as_stored(encoder: Encoder | None, rows: Any) -> Any:
    """Rows of a file as a gallery holds them: a model that takes vectors embeds them, all others have made them."""
    return encoder.encode(rows) if encoder is not None and encoder.spec.modality == "vector" else np.asarray(rows)


def array_batches(ids: list[str], array: Any, encoder: Encoder | None) -> Iterator[tuple[list[str], Any, list[Any]]]:
    """All rows, some at a time; no payload."""
    for start in range(0, len(ids), BATCH):
        some = slice(start, start + BATCH)
        yield ids[some], as_stored(encoder, array[some]), [{} for _ in ids[some]]


def array_embedder(ids: list[str], array: Any, encoder: Encoder | None) -> Any:
    """For a backfill: item ids to rows of a file of vectors."""
    place_of = {name: place for place, name in enumerate(ids)}

    def embed(wanted: list[str]) -> Embedded:
        missing = {name: "not in --ids" for name in wanted if name not in place_of}
        known = [name for name in wanted if name in place_of]
        return Embedded(known, as_stored(encoder, array[[place_of[name] for name in known]]), missing)

    return embed


def named_generation(name: str, dim: int, answers: tuple[str, ...] = ()) -> Generation:
    """A model known by name only, for vectors from files: the name stands for its fingerprint."""
    return Generation(name=name, dim=dim, fingerprint=f"name:{name}", answers=answers)
