"""In which order a backfill takes the items that are still old."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery import uncertainties
from nobackfill.gallery.filters import Filter
from nobackfill.gallery.stores.base import Store
from nobackfill.gallery.vectors import vectors_of

Order = Literal["random", "oldest", "isolated", "dense", "popular", "uncertain"]
REFERENCES = 5000  # old vectors among which the nearest one is looked for, by `isolated` and `dense`
CHUNK = 4096


def oldest(store: Store, newest: int, seed: int, where: Filter | None = None) -> Iterator[str]:  # noqa: ARG001
    """Older generations first, each in the order of insertion."""
    for number in _older(store, newest):
        for ids in store.ids(number, where=where):
            yield from ids


def at_random(store: Store, newest: int, seed: int, where: Filter | None = None) -> list[str]:
    """Any order is as good as any other; `seed` decides."""
    ids = list(oldest(store, newest, seed, where))
    return [ids[index] for index in np.random.default_rng(seed).permutation(len(ids))]


def popular(store: Store, newest: int, seed: int, where: Filter | None = None) -> list[str]:
    """Items that searches returned most often first, the others at random."""
    hits = dict(store.hits())
    if not hits:
        raise GalleryError(
            f"{store.url}: no search results are recorded; search with --remember, or use another --order"
        )
    return sorted(at_random(store, newest, seed, where), key=lambda name: -hits.get(name, 0))


def isolated(store: Store, newest: int, seed: int, where: Filter | None = None) -> list[str]:
    """Items farthest from their nearest neighbour in the old space first."""
    nearest: dict[str, float] = {}
    for number in _older(store, newest):
        ids = [name for some in store.ids(number, where=where) for name in some]
        chosen = np.random.default_rng(seed).permutation(len(ids))[:REFERENCES]
        known, references = vectors_of(store, [ids[index] for index in chosen], number)
        index_of = {name: index for index, name in enumerate(known)}
        for start in range(0, len(ids), CHUNK):
            some, vectors = vectors_of(store, ids[start : start + CHUNK], number)
            scores = vectors @ references.T
            for row, name in enumerate(some):
                if name in index_of:
                    scores[row, index_of[name]] = -np.inf
            nearest.update(zip(some, scores.max(axis=1, initial=-np.inf).tolist(), strict=True))
    return sorted(nearest, key=lambda name: nearest[name])


def dense(store: Store, newest: int, seed: int, where: Filter | None = None) -> list[str]:
    """Items nearest to a neighbour in the old space first."""
    return isolated(store, newest, seed, where)[::-1]


def uncertain(store: Store, newest: int, seed: int, where: Filter | None = None) -> list[str]:
    """Items whose mapped vectors are least sure first (see `uncertainties`), those nothing is known of at random last.

    Without a recorded uncertainty for any of them, it is refused.
    """
    known = uncertainties.read(store)
    ids = at_random(store, newest, seed, where)
    if ids and not any(name in known for name in ids):
        raise GalleryError(
            f"{store.url}: no uncertainties are recorded for its old items; record them with "
            "`nobackfill gallery uncertainty`, or use another --order"
        )
    return sorted(ids, key=lambda name: -known.get(name, -np.inf))


def _older(store: Store, newest: int) -> list[int]:
    return sorted(number for number in store.counts() if number < newest)


ORDERS: dict[Order, Callable[[Store, int, int, Filter | None], Iterable[str]]] = {
    "random": at_random,
    "oldest": oldest,
    "isolated": isolated,
    "dense": dense,
    "popular": popular,
    "uncertain": uncertain,
}
"""Called with the store, the number of the newest generation, a seed, and what holds for the items that are wanted."""
