"""Searching an adopted collection of Milvus: items whose new vector is still that of their own vector, and the others.

Milvus compares no two collections. So what is found by a new vector is checked: its item must have the own vector it
was made for. Items of an older generation are looked for among the nearest by that generation's vectors, until enough
of them have no newer one: at most the `LIMIT` nearest. Whether a newer vector is outdated is only asked for the
`CHANGED` nearest, or four times k.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.gallery.filters import Filter
from nobackfill.gallery.stores.adopted_items import unit
from nobackfill.gallery.stores.adopted_milvus_layout import Key
from nobackfill.gallery.stores.adopted_milvus_rows import STRONG, AdoptedRows
from nobackfill.gallery.stores.base import Floats, Nearest
from nobackfill.gallery.stores.milvus_search import LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANGED = 100
Found = list[tuple[Key, float]]


def nearest(rows: AdoptedRows, number: int, queries: Floats, k: int) -> Nearest:
    """The best items of one generation for each query; see `Store.search`."""
    found: list[Found] = [[] for _ in queries]
    left = list(range(len(queries)))
    plain = number == 1 and not rows.later
    limit = min(k if plain else max(4 * k, CHANGED), LIMIT)
    while left:
        answers = _asked(rows, number, queries[left], limit)
        held = None if plain else _held(rows, number, answers, max(4 * k, CHANGED))
        again = []
        for place, answer in zip(left, answers, strict=True):
            kept = [each for each in answer if held is None or each[0] in held]
            found[place] = kept[:k]
            if len(kept) < k and len(answer) == limit < LIMIT:
                again.append(place)
        left, limit = again, min(8 * limit, LIMIT)
    return Nearest(
        [[str(key) for key, _ in one] for one in found],
        [np.array([score for _, score in one], np.float32) for one in found],
    )


def compared(rows: AdoptedRows, queries: Mapping[int, Floats], k: int, where: Filter) -> dict[int, Nearest]:
    """The same for several generations, of items that fulfil a filter: exactly, for all of these are read."""
    found = {number: Nearest.none(len(asked)) for number, asked in queries.items()}
    for page in rows.matching(where, LIMIT):
        for items in rows.batches(rows.by_key(page), payloads=False):
            number = items.generation
            if number in queries and items.ids:
                found[number] = found[number].with_more(items.ids, queries[number] @ items.vectors.T, k)
    return found


def _asked(rows: AdoptedRows, number: int, queries: Floats, limit: int) -> list[Found]:
    """What Milvus finds by the vectors of a generation: keys and inner products, best first."""
    adoption, connection = rows.adoption, rows.connection
    own = number == 1
    with connection.translated():
        answers = connection.client.search(
            connection.readable(rows.collection) if own else connection.loaded(f"g{number}"),
            (unit(queries) if own and adoption.metric == "COSINE" else queries).tolist(),
            anns_field=adoption.vector,
            limit=limit,
            output_fields=[adoption.key],
            consistency_level=STRONG,
        )
    norms: NDArray[np.float32] = np.linalg.norm(queries, axis=1).astype(np.float32)
    found = []
    for answer, norm in zip(answers, norms, strict=True):
        scores = np.array([hit["distance"] for hit in answer], np.float32)
        if own:
            scores = adoption.similarities(scores, norm)
        found.append(list(zip([hit["entity"][adoption.key] for hit in answer], scores.tolist(), strict=True)))
    return found


def _held(rows: AdoptedRows, number: int, answers: list[Found], most: int) -> set[Key]:
    """Which of the items found are of this generation."""
    every = list(dict.fromkeys(key for answer in answers for key, _ in answer))
    near = {key for answer in answers for key, _ in answer[:most]}
    newer = rows.marked(every, number)
    plain = {key for key in every if key not in newer} if number == 1 else set[Key]()
    asked = [key for key in every if key not in plain and (key in near or key not in newer)]
    numbers = rows.numbered(asked)
    return plain | {key for key in asked if numbers.get(key) == number}
