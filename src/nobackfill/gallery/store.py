"""What a store has to do: hold vectors by generation, search them, exchange them without a gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import Floats

Payload = Mapping[str, Any]


class UnreachableError(GalleryError):
    """The store did not answer; worth another try."""


@dataclass(frozen=True)
class Items:
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
class Found:
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

    def insert(self, items: Items) -> None:
        """Add new items; raises `GalleryError` if an id is there already."""

    def replace(self, items: Items, *, keep_old: bool) -> None:
        """Exchange the vectors of existing items for those of a newer generation, all at one moment."""

    def search(self, queries: Mapping[int, Floats], k: int) -> dict[int, Found]:
        """For each generation its best k items by inner product, of one state of the store, or the oldest first."""

    def counts(self) -> dict[int, int]:
        """Items by generation."""

    def ids(self, generation: int) -> list[str]:
        """Items whose vector is of this generation, in the order they were inserted."""

    def fetch(self, ids: Sequence[str]) -> list[Items]:
        """Vectors and payloads of these items, grouped by generation; unknown ids are left out."""

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        """What else is known of these items, without their vectors; unknown ids are left out."""

    def scan(self, size: int) -> Iterator[Items]:
        """Every item, some of one generation at a time."""

    def restore(self, generation: int) -> int:
        """Put back kept vectors of this generation or older for newer items; returns for how many there are none."""

    def compact(self) -> None:
        """Give back space, rebuild indexes, forget kept vectors."""

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """For one writer at a time; gone with its owner. Raises `GalleryError` if taken.

        Gives a function for long work to call now and then: it raises `GalleryError` if the lock was lost meanwhile.
        """

    def close(self) -> None:
        """Let go of files and connections."""


def lock_lost(url: str) -> str:
    """What to say when another process may have taken the lock over."""
    return f"{url}: lost the lock on this gallery (an outage?); nothing more is written, the same command goes on"


def without_credentials(url: str) -> str:
    """The URL as it may be printed: no user, password or query string."""
    head, slashes, tail = url.partition("://")
    if not slashes:
        scheme, _, rest = url.partition(":")
        return url if scheme in ("faiss", "qdrant") else f"{scheme}:{rest.rpartition('@')[2]}"
    login, _, place = tail.rpartition("@")
    if any(mark in login for mark in "/?#@"):  # of a password that is not encoded; where it ends, nobody knows
        return f"{head}://…"
    place, _, table = place.partition("#")
    return f"{head}://{place.partition('?')[0]}" + (f"#{table}" if table else "")
