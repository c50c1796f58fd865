"""Searching an adopted collection: points whose new vector is still that of their own vector, and the others.

Qdrant does not know which points an application changed. So what a search finds among points with new vectors is
checked by their sketches. Items of an older generation are looked for twice: among the points that never got a newer
vector, and among the `CHANGED` nearest of those that did.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.gallery.filters import AnyOf, Condition, Equals, Within, matches
from nobackfill.gallery.filters import Filter as Where
from nobackfill.gallery.stores.adopted_qdrant_layout import Adoption, generations_of, shown, sketch_name, vector_name
from nobackfill.gallery.stores.base import Floats, Nearest

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import FieldCondition, Filter, ScoredPoint, SearchParams

CHANGED = 100  # points with newer vectors that are checked for each query, or four times k
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # keys that are no paths
Found = list[tuple[str, float]]


@dataclass(frozen=True)
class Searcher:
    """Looks for the nearest points.

    Attributes:
        client: of Qdrant.
        models: its module of that name.
        collection: of the application.
        adoption: what was agreed.
        later: numbers of the generations after the first.
        exact: parameters of a search that misses nothing; None in local mode, which is exact in any case.
    """

    client: QdrantClient
    models: ModuleType
    collection: str
    adoption: Adoption
    later: Sequence[int]
    exact: SearchParams | None

    def nearest(self, number: int, queries: Floats, k: int, where: Where | None) -> Nearest:
        """The best items of one generation for each query; see `Store.search`."""
        if number not in (1, *self.later):  # its named vectors are being made
            return Nearest.none(len(queries))
        newer = [other for other in self.later if other > number]
        found = self._look(number, queries, k, where, self._filter(number, newer, where, changed=False))
        if newer:
            most = max(4 * k, CHANGED)
            wanted = self._filter(number, newer, where, changed=True)
            changed = self._look(number, queries, k, where, wanted, most)
            found = [
                sorted([*one, *other], key=lambda each: -each[1])[:k] for one, other in zip(found, changed, strict=True)
            ]
        norms = np.linalg.norm(queries, axis=1) if number == 1 and self.adoption.cosine else np.ones(len(queries))
        return Nearest(
            [[name for name, _ in one] for one in found],
            [
                np.array([norm * score for _, score in one], np.float32)
                for one, norm in zip(found, norms.tolist(), strict=True)
            ],
        )

    def _look(
        self, number: int, queries: Floats, k: int, where: Where | None, wanted: Filter, most: int | None = None
    ) -> list[Found]:
        """The best k of the points that are wanted; of the `most` nearest only, if that is given."""
        own = self.adoption.vector
        needed = [] if number == 1 and most is None else [own, *map(sketch_name, self.later)]
        found: list[Found] = [[] for _ in queries]
        left, limit = list(range(len(queries))), most or (k if where is None else 2 * k)
        while left:
            requests = [
                self.models.QueryRequest(
                    query=queries[place].tolist(),
                    using=own if number == 1 else vector_name(number),
                    filter=wanted,
                    params=None if where is None else self.exact,
                    limit=limit,
                    with_payload=where is not None,
                    with_vector=needed or False,
                )
                for place in left
            ]
            answers = self.client.query_batch_points(self.collection, requests)
            again = []
            for place, answer in zip(left, answers, strict=True):
                kept = [point for point in answer.points if where is None or matches(where, self.payload(point))]
                if needed:
                    numbers = generations_of(self.adoption, self.later, [dict(point.vector or {}) for point in kept])
                    kept = [point for point, each in zip(kept, numbers, strict=True) if each == number]
                found[place] = [(str(point.id), float(point.score)) for point in kept[:k]]
                if len(kept) < k and len(answer.points) == limit and most is None:
                    again.append(place)
            left, limit = again, 4 * limit
        return found

    def payload(self, point: ScoredPoint) -> dict[str, object]:
        """What is known of an item."""
        return shown(self.adoption, point.payload)

    def _filter(self, number: int, newer: Sequence[int], where: Where | None, *, changed: bool) -> Filter:
        """Points that have a vector of this generation, and none (or `changed`: one) of a newer one."""
        has = [self.models.HasVectorCondition(has_vector=vector_name(each)) for each in newer]
        held = self.adoption.vector if number == 1 else vector_name(number)
        return self.models.Filter(
            must=[self.models.HasVectorCondition(has_vector=held), *narrowed(self.models, self.adoption, where)],
            must_not=None if changed else has,
            should=has if changed else None,
        )


def narrowed(models: ModuleType, adoption: Adoption, where: Where | None) -> list[FieldCondition]:
    """Conditions that every point fulfils that fulfils the filter, and others perhaps too: answers are checked."""
    keys = adoption.payload_keys
    return [
        made
        for condition in where or ()
        if (made := _narrowed(models, condition)) is not None and (keys is None or condition.key in keys)  # type: ignore[union-attr]
    ]


def _narrowed(models: ModuleType, condition: Condition) -> FieldCondition | None:
    if not isinstance(condition, Equals | AnyOf | Within) or not PLAIN.fullmatch(condition.key):
        return None
    if isinstance(condition, Within):
        bounds = {"gte": condition.low, "lte": condition.high}
        return models.FieldCondition(key=condition.key, range=models.Range(**bounds))
    values = condition.values if isinstance(condition, AnyOf) else (condition.value,)
    if not values or not all(isinstance(value, str) for value in values):
        return None
    return models.FieldCondition(key=condition.key, match=models.MatchAny(any=list(values)))
