"""The best items of all generations of an adopted table, with their payloads, by one statement a query.

scan           without a vector index, or with a filter: each row is looked at once, by the vector of its generation,
on the scale that all share. `new-column` only.
by indexes     each generation by the index of its own column, all in one statement. `new-column` only.
one column     `same-column`: the rows nearest by the one column, whatever their generation; which generation each is
of is looked up for these rows only. That is the whole answer unless generations are scored so
differently that a row farther away might be better: then the statement says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.gallery.filters import Filter
from nobackfill.gallery.stores.adopted_layout import Table
from nobackfill.gallery.stores.adopted_reading import similarity
from nobackfill.gallery.stores.adopted_sql import (
    OPERATORS,
    condition,
    generation,
    has_vector,
    item_id,
    key,
    noted_generation,
    of_generation,
    own,
    payload,
    table_of,
    vector,
)
from nobackfill.gallery.stores.base import Best, Floats, Scales
from nobackfill.gallery.stores.postgres_connection import as_vector

if TYPE_CHECKING:
    from nobackfill.gallery.stores.postgres_connection import Row

Statement = tuple[str, Sequence[object]]
WIDTHS = (100, 5000)  # rows of one column that are looked at, at first and if that is not enough
ALL = "NULL AS last, NULL AS more"  # no row is left that might be better
PARALLEL = 1 - 1e-6  # cosine of queries that are one direction


@dataclass(frozen=True)
class Asked:
    """One query of all generations.

    Attributes:
        vectors: by generation, as the database has them: a unit vector of the column's size.
        norms: by generation; a similarity times this is the score of the item among its generation.
        factors: by generation, what brings these scores to the scale that all share; `offsets` likewise.
    """

    vectors: dict[int, Floats]
    norms: dict[int, float]
    factors: dict[int, float]
    offsets: dict[int, float]

    @property
    def alike(self) -> bool:
        """Whether all generations are scored alike, so that similarities may be compared as they are."""
        return len({(self.norms[each] * self.factors[each], self.offsets[each]) for each in self.vectors}) == 1

    def score(self, table: Table, number: int, distance: float) -> float:
        """On the scale that all generations share, as `searching.merged` computes it."""
        (alike,) = similarity(_metric(table, number), np.array([distance], np.float64))
        score = np.float32(self.norms[number] * alike)
        return float(np.float32(self.factors[number]) * score + np.float32(self.offsets[number]))


def asked(table: Table, queries: Mapping[int, Floats], scales: Scales, place: int) -> Asked | None:
    """The query at this place; None if one column would have to be searched in several directions."""
    one_column = table.adoption.layout == "same-column"
    rows = {number: each[place, : table.adoption.dim if one_column else None] for number, each in queries.items()}
    norms = {number: float(np.linalg.norm(row)) for number, row in rows.items()}
    vectors = {number: row / (norms[number] or 1.0) for number, row in rows.items()}
    if one_column:
        first = next(iter(vectors.values()))
        if any(float(first @ each) < PARALLEL for each in vectors.values()):
            return None
    return Asked(
        vectors,
        norms,
        {number: float(scales[number][0][place]) if number in scales else 1.0 for number in rows},
        {number: float(scales[number][1][place]) if number in scales else 0.0 for number in rows},
    )


def best_statement(table: Table, query: Asked, k: int, where: Filter | None, width: int = WIDTHS[0]) -> Statement:
    """Answers id, generation, distance, payload of the best k, and two values that `best_of` understands.

    Args:
        table: as it is.
        query: to be answered.
        k: results wanted.
        where: a filter.
        width: rows of one column to look at, where `query` scores generations differently.
    """
    if table.adoption.layout == "same-column":
        return _one_column(table, query, k, where, width)
    if table.adoption.metric is None or where is not None:
        return _scan(table, query, k, where)
    return _by_indexes(table, query, k)


def best_of(table: Table, query: Asked, k: int, rows: Sequence[Row]) -> list[Best] | None:
    """The best k of an answer; None if it does not say enough."""
    results = [
        Best(name, query.score(table, number, distance), number, known) for name, number, distance, known, _, _ in rows
    ]
    results = sorted(results, key=lambda each: (-each.score, each.id))[:k]
    if table.adoption.layout == "same-column" and (not rows or rows[0][5]):  # there are rows that were not looked at
        if len(results) < k:
            return None
        if any(query.score(table, number, rows[0][4]) > results[-1].score for number in query.vectors):
            return None
    return results


def _scan(table: Table, query: Asked, k: int, where: Filter | None) -> Statement:
    wanted, values = condition(table, where)
    text, some = _by_generation(table, query, scored=len(query.vectors) > 1)
    again, others = _by_generation(table, query, scored=False)
    statement = (
        f"SELECT {item_id(table)} AS id, g.number, {again} AS d, {payload(table)} AS payload, {ALL} FROM "
        f"(SELECT {key(table)} AS key, {text} AS place FROM {table_of(table.adoption)} t WHERE {wanted} "
        f"ORDER BY place LIMIT %s) n JOIN {table_of(table.adoption)} t ON {key(table)} = n.key "
        f"CROSS JOIN LATERAL (SELECT {generation(table)} AS number OFFSET 0) g WHERE n.place IS NOT NULL"
    )
    return statement, [*others, *some, *values, k]


def _by_generation(table: Table, query: Asked, *, scored: bool) -> tuple[str, list[object]]:
    """A row's distance by the vector of its generation; scored: on the scale that all share, best first.

    NULL for rows of generations that are not asked. No index knows this expression.
    """
    cases, values = "", list[object]()
    for number in sorted({1, *table.adoption.newer}, reverse=True):
        then = "NULL"
        if number in query.vectors:
            distance = f"({vector(table, number)} {OPERATORS[_metric(table, number)]} %s)"
            then, some = distance, [as_vector(table.kind, query.vectors[number])]
            if scored:
                then, some = _place(table, query, number, distance, some)
            values += some
        cases += f"WHEN {has_vector(table, number)} THEN {then} "
    return f"CASE {cases}END", values


def _place(
    table: Table, query: Asked, number: int, distance: str, values: Sequence[object] = ()
) -> tuple[str, list[object]]:
    """Minus the score that all share, of a distance with its parameters: ascending, so that no score comes last."""
    metric = _metric(table, number)
    factor, offset = query.norms[number] * query.factors[number], query.offsets[number]
    if metric == "ip":
        return f"%s::float8 * {distance} - %s::float8", [factor, *values, offset]
    if metric == "l2":  # of unit vectors
        return f"%s::float8 * power({distance}, 2) - %s::float8", [factor / 2, *values, factor + offset]
    return f"%s::float8 * {distance} - %s::float8", [factor, *values, factor + offset]


def _metric(table: Table, number: int) -> str:
    first = number == 1 or table.adoption.layout == "same-column"
    return (table.adoption.metric or "cosine") if first else "ip"


def _by_indexes(table: Table, query: Asked, k: int) -> Statement:
    parts, values = [], list[object]()
    for number, each in query.vectors.items():
        distance = f"{vector(table, number)} {OPERATORS[_metric(table, number)]} %s"
        parts.append(
            f"(SELECT {key(table)} AS key, {int(number)} AS number, {distance} AS d FROM {table_of(table.adoption)} t "
            f"WHERE {of_generation(table, number)} ORDER BY d LIMIT %s)"
        )
        values += [as_vector(table.kind, each), k]
    statement = (
        f"SELECT {item_id(table)} AS id, n.number, n.d, {payload(table)} AS payload, {ALL} FROM "
        f"({' UNION ALL '.join(parts)}) n "
        f"JOIN {table_of(table.adoption)} t ON {key(table)} = n.key"
    )
    return statement, values


def _one_column(table: Table, query: Asked, k: int, where: Filter | None, width: int) -> Statement:
    rows = table_of(table.adoption)
    everything = query.alike and set(query.vectors) == {1, *table.adoption.newer}
    count = k if everything else max(2 * k, width)
    wanted, values = condition(table, where)
    first = next(iter(query.vectors.values()))
    nearest = (
        f"SELECT {key(table)} AS key, t.xmin AS writer, {own(table)} {OPERATORS[_metric(table, 1)]} %s AS d "
        f"FROM {rows} t WHERE {wanted}"
    )
    if table.adoption.metric is not None and where is not None:
        nearest = f"SELECT * FROM ({nearest} OFFSET 0) f"  # no index is asked for the order: no item is missed
    numbers = sorted(query.vectors)
    places = [_place(table, query, number, "g.d") for number in numbers]
    order = " ".join(f"WHEN {number} THEN {text}" for number, (text, _) in zip(numbers, places, strict=True))
    # Of all rows looked at: the generation, the distance of the last, and how many they are.
    seen = f"SELECT n.key, n.d, {noted_generation(table)} AS number, max(n.d) OVER () AS last, count(*) OVER () AS seen"
    statement = (
        f"SELECT {item_id(table)} AS id, g.number, g.d, {payload(table)} AS payload, g.last, g.seen = %s AS more "
        f"FROM (SELECT * FROM ({seen} FROM ({nearest} ORDER BY d LIMIT %s) n) g WHERE g.d IS NOT NULL "
        f"AND g.number = ANY(%s) ORDER BY CASE g.number {order} END LIMIT %s) g JOIN {rows} t ON {key(table)} = g.key"
    )
    scored = [value for _, some in places for value in some]
    return statement, [count, as_vector(table.kind, first), *values, count, numbers, *scored, k]
