"""What a store has to do: hold vectors by generation, search them, replace them without a gap.

A store keeps no more in memory than it must: ids and items come in batches, and what a gallery asks for is written so
that an embedded database (a transaction a call) can serve it as well as a folder of files or a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter

Floats = NDArray[np.float32]
Payload = Mapping[str, object]
Scales = Mapping[int, tuple[Floats, Floats]]
"""Stored generation → factor and offset of each query, float32 [n]; scores of others are compared as they are."""


CREATING = "creating"
"""A document that is there from the moment a store is made until its gallery is filled, so that what a kill leaves is
known to be begun again."""


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
        versions: of each item, from 1, one more at each upsert or payload update; empty where it was not asked for. An
            item that is removed and added again goes on counting.
    """

    ids: list[str]
    generation: int
    vectors: Floats
    payloads: list[Payload]
    versions: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Nearest:
    """The best items of one generation for each query: ids [n][≤ k], best first, and their scores alike."""

    ids: list[list[str]]
    scores: list[NDArray[np.float32]]

    @classmethod
    def none(cls, queries: int) -> Nearest:
        """What is found among no items."""
        return cls([[] for _ in range(queries)], [np.empty(0, np.float32) for _ in range(queries)])

    def with_more(self, names: list[str], scores: Floats, k: int) -> Nearest:
        """The best k of these and of further items, whose scores are float32 [n, len(names)]."""
        every = [np.concatenate(both) for both in zip(self.scores, scores, strict=True)]
        best = [np.argsort(-row, kind="stable")[:k] for row in every]
        known = [ids + names for ids in self.ids]
        return Nearest(
            [[ids[place] for place in places.tolist()] for ids, places in zip(known, best, strict=True)],
            [row[places] for row, places in zip(every, best, strict=True)],
        )


@dataclass(frozen=True)
class Best:
    """One of the best items of all generations.

    Attributes:
        id: of the item.
        score: on the scale that all generations share.
        generation: number of the generation of its vector.
        payload: what else is known of it.
    """

    id: str
    score: float
    generation: int
    payload: Payload


class Store(Protocol):
    """Vectors on disk or on a server. Every write is there whole when the call returns, or not at all.

    Any thread of any process may call `upsert`, `delete`, `set_payloads` and `replace` at any time: the store
    serialises them. Changes of the lineage and of a backfill's plan are made under `lock()`.

    Attributes:
        url: where it is, without credentials.
    """

    url: str

    def read(self, name: str) -> bytes | None:
        """A small document (manifest, journal), None if there is none."""

    def write(self, name: str, data: bytes | None) -> None:
        """Replace a document, or remove it."""

    def create(self) -> None:
        """Make an empty store, with the document `CREATING`; raises `GalleryError` if there is one."""

    def drop(self) -> None:
        """Remove everything the gallery made."""

    def add_generation(self, number: int, dim: int) -> None:
        """Make room for vectors of a new generation; nothing happens if there is room already."""

    def insert(self, items: ItemBatch) -> None:
        """Add new items; raises `GalleryError` if an id is there already."""

    def upsert(self, items: ItemBatch) -> None:
        """Add items, or replace them whole (vector, payload, generation); kept vectors of the old content go."""

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items with all they have (kept vectors, hits); returns how many were there."""

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        """Replace payloads of existing items; returns how many were there."""

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        """The version of each of these items; unknown ids are left out."""

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        """New vectors for existing items, all at one moment; their versions stay.

        An item is left alone if it is gone, if its vector is of this generation or a newer one already, or if its
        version is not the one in `items.versions` (where given). With `keep_old` the vectors they take the place of are
        kept for `restore`. Vectors that were kept before stay in any case.

        Returns:
            The ids left alone.
        """

    def search(self, queries: Mapping[int, Floats], k: int, where: Filter | None = None) -> dict[int, Nearest]:
        """For each generation its best k items by inner product, of one state of the store, or the oldest first.

        With `where`, of the items whose payload fulfils it, and then always exactly.
        """

    def best(
        self,
        queries: Mapping[int, Floats],
        k: int,
        where: Filter | None,
        scales: Callable[[], Scales],
    ) -> list[list[Best]] | None:
        """For each query the best k items of all these generations together, each query's of one state of the store.

        Args:
            queries: by generation, as in `search`.
            k: results wanted.
            where: as in `search`.
            scales: what brings the scores of each generation to one scale; it may have to be read from the store.

        Returns:
            None if the store has no shorter way than `search` and `payloads`.
        """
        return None

    def counts(self, where: Filter | None = None) -> dict[int, int]:
        """Items by generation."""

    def ids(self, generation: int, size: int = 8192, where: Filter | None = None) -> Iterator[list[str]]:
        """Items whose vector is of this generation, in the order they were inserted, `size` at a time."""

    def sample(self, count: int, seed: int) -> list[str]:
        """As many items of any generation at random (all, if there are no more), in the order they were inserted."""

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        """Vectors, payloads and versions of these items, grouped by generation; unknown ids are left out."""

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        """What else is known of these items, without their vectors; unknown ids are left out."""

    def scan(self, size: int) -> Iterator[ItemBatch]:
        """Every item without its payload, at most `size` of one generation at a time."""

    def count_hits(self, hits: Mapping[str, int]) -> None:
        """Add to the items' numbers of hits. Counts of several processes add up; none is lost."""

    def hits(self) -> Iterator[tuple[str, int]]:
        """Items that were hit and how often, the most popular first."""

    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        """Put back kept vectors of this generation or older for newer items.

        Returns:
            For how many items there are none. If there are such, nothing is changed, unless `leave_new`: then these
            items keep their newer vectors.
        """

    def compact(self, *, forget_kept: bool) -> None:
        """Give back the space of vectors that nobody asked to keep, and rebuild indexes; or forget kept ones too."""

    def lock(self, name: str = "gallery") -> AbstractContextManager[Callable[[], None]]:
        """A named lock for one owner at a time; gone with its owner. Raises `GalleryError` at once if taken.

        Gives a function for long work to call now and then: it raises `GalleryError` if the lock was lost meanwhile.
        """

    def close(self) -> None:
        """Let go of files and connections."""


class LockTakenError(GalleryError):
    """Another owner has the lock."""


def lock_taken(url: str) -> LockTakenError:
    """Another writer is at work."""
    return LockTakenError(f"{url}: another process is changing this gallery; wait for it to finish")


def lock_lost(url: str) -> GalleryError:
    """Another process may have taken the lock over."""
    return GalleryError(
        f"{url}: lost the lock on this gallery (an outage?); nothing more is written; the same command resumes"
    )
