"""Searching items of several generations at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter
from nobackfill.gallery.lineage import Manifest, load_manifest
from nobackfill.gallery.pair_rules import damaged_rule, fitted_rule
from nobackfill.gallery.stores.base import Best, Floats, Nearest, Payload, Scales, Store
from nobackfill.gallery.vectors import unit_rows


@dataclass(frozen=True)
class Hit:
    """One result of a query.

    Attributes:
        id: of the item.
        score: inner product, for items of older generations on the scale of the query's own; comparable within one
            query's results.
        generation: name of the model that made the item's vector.
        payload: what else is known of the item.
    """

    id: str
    score: float
    generation: str
    payload: Payload


def search_store(
    store: Store,
    queries: ArrayLike,
    k: int,
    fingerprint: str,
    *,
    remember: bool = False,
    where: Filter | None = None,
) -> list[list[Hit]]:
    """See `Gallery.search`."""
    if k < 0:
        raise GalleryError(f"k: expected 0 results or more, found {k}")
    manifest = load_manifest(store)  # another process may have upgraded it
    query_generation = served(manifest, fingerprint, store.url)
    rows = unit_rows(queries, manifest.generations[query_generation - 1].dim, "queries")
    if k == 0:  # which some stores refuse
        return [[] for _ in rows]
    asked = {
        number: manifest.query_vectors(rows, query_generation, number)
        for number in _searchable(store, manifest, query_generation)
    }

    def scales() -> Scales:
        return _scales(store, manifest, query_generation, rows)

    results = store.best(asked, k, where, scales)
    if results is None:
        results = _by_generation(store, asked, k, where, scales)
    if remember:
        store.count_hits(Counter(each.id for result in results for each in result))
    names = {number: generation.name for number, generation in enumerate(manifest.generations, start=1)}
    return [[Hit(each.id, each.score, names[each.generation], each.payload) for each in result] for result in results]


def served(manifest: Manifest, fingerprint: str, url: str) -> int:
    """Number of a generation whose queries and items are taken; raises `GalleryError` if it is no longer served."""
    number = manifest.number(fingerprint)
    if number < manifest.serves_from:
        name, newer, newest = map(manifest.name, (number, manifest.serves_from, manifest.newest))
        switched = manifest.comparable(number, manifest.newest)
        why = f"was switched to {newer}" if switched else f"{newest} does not compare with vectors of {name}"
        raise GalleryError(f"{url}: {why}; {name} is no longer served: embed with {newer if switched else newest}")
    return number


def _by_generation(
    store: Store, queries: Mapping[int, Floats], k: int, where: Filter | None, scales: Callable[[], Scales]
) -> list[list[Best]]:
    """As `Store.best`, by a search of each generation."""
    nearest = store.search(queries, k, where)
    rules = scales()  # a rule may have been renewed since the manifest was read
    results = [merged(nearest, query, k, rules) for query in range(len(next(iter(queries.values()), ())))]
    payloads = store.payloads(sorted({name for result in results for name, _, _ in result}))
    return [[Best(name, score, number, payloads.get(name, {})) for name, score, number in result] for result in results]


def merged(
    nearest: Mapping[int, Nearest], query: int, k: int, scales: Scales | None = None
) -> list[tuple[str, float, int]]:
    """One query's best k of all generations: id, score, generation.

    An item that is seen twice was replaced between two looks at the store: its newer vector counts.
    """
    results: dict[str, tuple[float, int]] = {}
    for number in sorted(nearest):
        scores = np.asarray(nearest[number].scores[query])
        if scales and number in scales:
            factor, offset = scales[number]
            scores = factor[query] * scores + offset[query]
        for name, score in zip(nearest[number].ids[query], scores.tolist(), strict=True):
            results[name] = (score, number)
    best = sorted(results.items(), key=lambda item: (-item[1][0], item[0]))[:k]
    return [(name, score, number) for name, (score, number) in best]


def _scales(store: Store, manifest: Manifest, query_generation: int, rows: Floats) -> Scales:
    """What the scoring rules of these queries make of the scores of each stored generation.

    Raises:
        GalleryError: if the document of a rule is missing or damaged.
    """
    scales = {}
    for number in range(1, query_generation):
        dims = manifest.generations[number - 1].dim, manifest.generations[query_generation - 1].dim
        pair = manifest.pair_rule(query_generation, number)
        rule = None if pair is None else fitted_rule(store, pair, dims)
        if pair is not None and rule is None:  # renewed since the manifest was read
            pair = load_manifest(store).pair_rule(query_generation, number)
            rule = None if pair is None else fitted_rule(store, pair, dims)
            if pair is not None and rule is None:
                raise damaged_rule(store, pair)
        if rule is not None:
            scales[number] = rule.factors(rows)
    return scales


def _searchable(store: Store, manifest: Manifest, query_generation: int) -> list[int]:
    """Generations to search, empty ones too, for a backfill may fill one before the store is looked at.

    Raises:
        GalleryError: if there are items whose vectors do not compare with the queries.
    """
    numbers = range(manifest.serves_from, manifest.newest + 1)
    comparable = [number for number in numbers if manifest.comparable(query_generation, number)]
    if len(comparable) < len(numbers):
        counts = store.counts()
        for number in numbers:
            if number not in comparable and counts.get(number):
                names = [manifest.generations[each - 1].name for each in (query_generation, number)]
                raise GalleryError(
                    f"{store.url}: queries of {names[0]} cannot be compared with vectors of {names[1]}, of which the "
                    f"gallery holds {counts[number]}: backfill, or search with another model"
                )
    return comparable
