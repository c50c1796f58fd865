"""What a store has to do: hold vectors by generation, search them, replace them without a gap.

A store keeps no more in memory than it must: ids and items come in batches, and what a gallery asks for is written so
that an embedded database (a transaction a call) can serve it as well as a folder of files or a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import GalleryError

Floats = NDArray[np.float32]
Payload = Mapping[str, object]


class UnreachableError(GalleryError):
    """The store did not answer; worth another try."""


@dataclass(frozen=True)
class ItemBatch:
    """Some items of one generation.

    Attributes:
        ids: of any text; unique in a gallery.
        generation: number of the generation, from 1.
        vectors: float32 [n, dim], unit norm.
        payloads: what else is known of each, JSON values; empty where it was not asked for.
    """

    ids: list[str]
    generation: int
    vectors: Floats
    payloads: list[Payload]


@dataclass(frozen=True)
class Nearest:
    """The best items of one generation for each query: ids [n][≤ k], best first, and their scores alike."""

    ids: list[list[str]]
    scores: list[NDArray[np.float32]]


class Store(Protocol):
    """Vectors on disk or on a server. Every write is there whole when the call returns, or not at all.

    Attributes:
        url: where it is, without credentials.
    """

    url: str

    def read(self, name: str) -> bytes | None:
        """A small document (manifest, journal), None if there is none."""

    def write(self, name: str, data: bytes | None) -> None:
        """Replace a document, or remove it."""

    def create(self) -> None:
        """Make an empty store; raises `GalleryError` if there is one."""

    def add_generation(self, number: int, dim: int) -> None:
        """Make room for vectors of a new generation; nothing happens if there is room already."""

    def insert(self, items: ItemBatch) -> None:
        """Add new items; raises `GalleryError` if an id is there already."""

    def replace(self, items: ItemBatch, *, keep_old: bool) -> None:
        """Replace the vectors of existing items by those of a newer generation, all at one moment.

        With `keep_old` the vectors they take the place of are kept for `restore`. Vectors that were kept before stay
        in any case.
        """

    def search(self, queries: Mapping[int, Floats], k: int) -> dict[int, Nearest]:
        """For each generation its best k items by inner product, of one state of the store, or the oldest first."""

    def counts(self) -> dict[int, int]:
        """Items by generation."""

    def ids(self, generation: int, size: int = 8192) -> Iterator[list[str]]:
        """Items whose vector is of this generation, in the order they were inserted, `size` at a time."""

    def sample(self, count: int, seed: int) -> list[str]:
        """As many items of any generation at random (all, if there are no more), in the order they were inserted."""

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        """Vectors and payloads of these items, grouped by generation; unknown ids are left out."""

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        """What else is known of these items, without their vectors; unknown ids are left out."""

    def scan(self, size: int) -> Iterator[ItemBatch]:
        """Every item without its payload, at most `size` of one generation at a time."""

    def count_hits(self, hits: Mapping[str, int]) -> None:
        """Add to the items' numbers of hits. Counts of several processes add up; none is lost."""

    def hits(self) -> Iterator[tuple[str, int]]:
        """Items that were hit and how often, the most popular first."""

    def restore(self, generation: int) -> int:
        """Put back kept vectors of this generation or older for newer items; returns for how many there are none."""

    def compact(self, *, forget_kept: bool) -> None:
        """Give back the space of vectors that nobody asked to keep, and rebuild indexes; or forget kept ones too."""

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """For one writer at a time; gone with its owner. Raises `GalleryError` if taken.

        Gives a function for long work to call now and then: it raises `GalleryError` if the lock was lost meanwhile.
        """

    def close(self) -> None:
        """Let go of files and connections."""


def lock_taken(url: str) -> GalleryError:
    """Another writer is at work."""
    return GalleryError(f"{url}: another process is changing this gallery; wait for it to finish")


def lock_lost(url: str) -> GalleryError:
    """Another process may have taken the lock over."""
    return GalleryError(
        f"{url}: lost the lock on this gallery (an outage?); nothing more is written; the same command resumes"
    )
