"""Exact search in Milvus, with a filter or without."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np

from nobackfill.gallery.filters import AnyOf, Condition, Equals, Filter, Within, matches
from nobackfill.gallery.stores.base import Floats, Nearest
from nobackfill.gallery.stores.milvus_connection import MilvusConnection, Row

PLAIN = re.compile(r"[A-Za-z0-9_ .:/-]*")  # texts that every version of Milvus reads alike
LIMIT = 16_384  # answers to one query
CURRENT = "current == true"


def nearest(connection: MilvusConnection, number: int, queries: Floats, k: int, where: Filter | None) -> Nearest:
    """The best k of a generation for each query.

    Milvus and milvus-lite differ in what `true == 1` and a missing key mean, so only conditions that both understand
    alike are sent, and each answer is checked here. If too few are left, the generation is compared here, a page at a
    time.
    """
    limit = min(k, LIMIT) if where is None else min(max(64, 4 * k), LIMIT)
    expression = expression_of(where)
    with connection.translated():
        answers = connection.client.search(
            connection.loaded(f"g{number}"),
            queries.tolist(),
            anns_field="vector",
            filter=expression,
            limit=limit,
            output_fields=["id"] if where is None else ["id", "payload"],
        )
    ids, scores = [], []
    for answer in answers:
        right = [hit for hit in answer if where is None or matches(where, hit["entity"]["payload"])]
        if len(right) < k and len(answer) == limit:
            return _compared(connection, number, queries, k, where or ())
        ids.append([hit["entity"]["id"] for hit in right[:k]])
        scores.append(np.array([hit["distance"] for hit in right[:k]], np.float32))
    return Nearest(ids, scores)


def matching(
    connection: MilvusConnection, number: int, where: Filter | None, fields: list[str], size: int
) -> Iterator[list[Row]]:
    """Rows of a generation's items that fulfil the filter."""
    wanted = fields if where is None else [*fields, "payload"]
    for page in connection.pages(f"g{number}", expression_of(where), wanted, size):
        yield page if where is None else [row for row in page if matches(where, row["payload"])]


def expression_of(where: Filter | None) -> str:
    """A condition of Milvus that every item the filter wants fulfils; others may, too."""
    return " and ".join([CURRENT, *(text for condition in where or () if (text := _expression(condition)))])


def _expression(condition: Condition) -> str:
    if not isinstance(condition, Equals | AnyOf | Within) or not PLAIN.fullmatch(condition.key) or not condition.key:
        return ""
    field = f"payload[{json.dumps(condition.key)}]"
    if isinstance(condition, Within):
        low, high = (">" if condition.low_open else ">="), ("<" if condition.high_open else "<=")
        bounds = ((low, condition.low), (high, condition.high))
        return " and ".join(f"{field} {sign} {float(bound)!r}" for sign, bound in bounds if bound is not None)
    texts = [condition.value] if isinstance(condition, Equals) else list(condition.values)
    if not texts or not all(isinstance(text, str) and PLAIN.fullmatch(text) for text in texts):
        return ""
    return "(" + " or ".join(f"{field} == {json.dumps(text)}" for text in texts) + ")"


def _compared(connection: MilvusConnection, number: int, queries: Floats, k: int, where: Filter) -> Nearest:
    best = Nearest.none(len(queries))
    for rows in matching(connection, number, where, ["id", "vector"], LIMIT):
        if rows:
            every = queries @ np.array([row["vector"] for row in rows], np.float32).T
            best = best.with_more([row["id"] for row in rows], every, k)
    return best
