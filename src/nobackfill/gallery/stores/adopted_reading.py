"""What is asked of an adopted table: its items, and those nearest to queries. All take a cursor in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.gallery.filters import Filter
from nobackfill.gallery.stores.adopted_items import unit
from nobackfill.gallery.stores.adopted_layout import Table
from nobackfill.gallery.stores.adopted_sql import (
    OPERATORS,
    canonical,
    condition,
    generation,
    item_id,
    key,
    of_generation,
    own,
    payload,
    source,
    vector,
    version,
)
from nobackfill.gallery.stores.base import Floats, ItemBatch, Nearest, Payload
from nobackfill.gallery.stores.postgres_connection import EF_SEARCH, Row, as_vector, by_generation

if TYPE_CHECKING:
    from psycopg import Cursor

UTC = "SET LOCAL TimeZone = 'UTC';"  # payloads and filters see times alike, whatever the role's settings
# One snapshot for all generations: an item that moves meanwhile is seen once, where it was.
ONE_STATE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
SETTINGS = (  # of each connection
    f"SET TimeZone = 'UTC'; SET hnsw.iterative_scan = strict_order; SET hnsw.ef_search = {EF_SEARCH}; "
    "SET ivfflat.iterative_scan = relaxed_order; SET jit = off"
)


def counts(cursor: Cursor, table: Table, where: Filter | None) -> dict[int, int]:
    """Items by generation."""
    wanted, values = condition(table, where)
    cursor.execute(
        f"SELECT {generation(table)} AS g, count(*) FROM {source(table)} WHERE {wanted} GROUP BY g ORDER BY g",
        values,
    )
    return {int(number): int(count) for number, count in cursor if number is not None}


def page_of_ids(
    cursor: Cursor, table: Table, number: int, size: int, where: Filter | None, last: str | None
) -> list[str]:
    """The next ids of a generation, in the order of the id column."""
    wanted, values = condition(table, where)
    after = f"{key(table)} > %s::{table.id_type} AND " if last is not None else ""
    cursor.execute(
        f"SELECT {item_id(table)} FROM {source(table)} WHERE {after}{of_generation(table, number)} "
        f"AND {wanted} ORDER BY {key(table)} LIMIT %s",
        [*([last] if last is not None else []), *values, size],
    )
    return [name for (name,) in cursor]


def sample(cursor: Cursor, table: Table, count: int, seed: int) -> list[str]:
    """Items whose hashed ids come first: the same for the same seed, whatever the order of the rows."""
    cursor.execute(
        f"SELECT name FROM (SELECT {key(table)} AS place, {item_id(table)} AS name FROM {source(table)} "
        f"WHERE {own(table)} IS NOT NULL OR {generation(table)} IS NOT NULL "
        f"ORDER BY hashtextextended({item_id(table)}, %s) LIMIT %s) s ORDER BY place",
        (seed, count),
    )
    return [name for (name,) in cursor]


def versions(cursor: Cursor, table: Table, ids: Sequence[str]) -> dict[str, int]:
    """A number for each item that changes with its old vector."""
    cursor.execute(
        f"SELECT {item_id(table)}, {version(table)} FROM {source(table)} "
        f"WHERE {key(table)} = ANY(%s::text[]::{table.id_type}[]) AND {generation(table)} IS NOT NULL",
        (canonical(table, ids),),
    )
    return dict(cursor.fetchall())


def payloads(cursor: Cursor, table: Table, ids: Sequence[str]) -> dict[str, Payload]:
    """The payload columns of these rows."""
    cursor.execute(
        f"SELECT {item_id(table)}, {payload(table)} FROM {source(table)} "
        f"WHERE {key(table)} = ANY(%s::text[]::{table.id_type}[])",
        (canonical(table, ids),),
    )
    return dict(cursor.fetchall())


def fetch(cursor: Cursor, table: Table, ids: Sequence[str]) -> list[ItemBatch]:
    """Vectors, payloads and versions of these items, by generation."""
    cursor.execute(
        f"SELECT {item_id(table)}, g, {_sent(table)}, {payload(table)}, {version(table)} FROM {_numbered(table)} "
        f"WHERE {key(table)} = ANY(%s::text[]::{table.id_type}[]) AND g IS NOT NULL ORDER BY g, {key(table)}",
        (canonical(table, ids),),
    )
    return _grouped(table, cursor.fetchall())


def page(cursor: Cursor, table: Table, size: int, last: str | None) -> tuple[list[ItemBatch], str | None]:
    """The next rows in the order of the id column as items, and the last id of them; None at the end."""
    after = f"AND {key(table)} > %s::{table.id_type}" if last is not None else ""
    cursor.execute(
        f"SELECT {item_id(table)}, g, {_sent(table)} FROM {_numbered(table)} WHERE g IS NOT NULL {after} "
        f"ORDER BY {key(table)} LIMIT %s",
        [*([last] if last is not None else []), size],
    )
    rows = cursor.fetchall()
    return _grouped(table, rows), rows[-1][0] if rows else None


def nearest(cursor: Cursor, table: Table, number: int, queries: Floats, k: int, where: Filter | None) -> Nearest:
    """The best items of one generation for each query."""
    if table.adoption.layout == "same-column":
        queries = np.ascontiguousarray(queries[:, : table.adoption.dim])
    norms = np.linalg.norm(queries, axis=1)
    first = vector(table, number) == own(table)
    metric = table.adoption.metric or "cosine" if first else "ip"
    wanted, values = condition(table, where)
    distance = f"{vector(table, number)} {OPERATORS[metric]} %s"
    statement = (
        f"SELECT {key(table)} AS key, {distance} AS d FROM {source(table)} "
        f"WHERE {of_generation(table, number)} AND {wanted}"
    )
    if where is not None and table.adoption.metric is not None:
        # No index is asked for the order, so that no item is missed.
        statement = f"SELECT key, d FROM ({statement} OFFSET 0) f"
    statement = f"SELECT key::text, d FROM ({statement} ORDER BY d LIMIT %s) n"
    ids, scores = [], []
    for row, norm in zip(queries, norms.tolist(), strict=True):
        query = as_vector(table.kind, row / (norm or 1.0))
        cursor.execute(statement, [query, *values, k])
        found = cursor.fetchall()
        alike = similarity(metric, np.array([distance for _, distance in found], np.float64))
        order = np.argsort(-alike, kind="stable")
        ids.append([str(found[place][0]) for place in order])
        scores.append((norm * alike[order]).astype(np.float32))
    return Nearest(ids, scores)


def similarity(metric: str, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each distance; of vectors that are zero, nothing."""
    similarity: NDArray[np.float64] = -distances if metric == "ip" else 1 - distances**2 / 2
    if metric == "cosine":
        similarity = np.nan_to_num(1 - distances)
    return similarity


def _numbered(table: Table) -> str:
    """The rows with their generation `g`, which is computed once a row."""
    return f"{source(table)} CROSS JOIN LATERAL (SELECT {generation(table)} AS g OFFSET 0) n"


def _sent(table: Table) -> str:
    """The bytes of the item's vector."""
    cases = "".join(
        f"WHEN {number} THEN {table.kind}_send({vector(table, number)}) " for number in table.adoption.newer
    )
    return f"CASE g {cases}ELSE {table.kind}_send({own(table)}) END" if cases else f"{table.kind}_send({own(table)})"


def _grouped(table: Table, rows: Sequence[Row]) -> list[ItemBatch]:
    return [
        ItemBatch(
            [row[0] for row in group],
            number,
            _vectors(table, number, [row[2] for row in group]),
            [row[3] for row in group if len(row) > 3],
            [row[4] for row in group if len(row) > 4],
        )
        for number, group in by_generation(rows).items()
    ]


def _vectors(table: Table, number: int, sent: list[bytes]) -> Floats:
    """What pgvector sent as unit vectors (see `unit`); a compatible part gets zeros for the rest."""
    kind = ">f2" if table.kind == "halfvec" else ">f4"
    rows = np.stack([np.frombuffer(each, kind, offset=4) for each in sent]).astype(np.float32)
    if number == 1 or table.adoption.layout == "same-column":
        rows = unit(rows, all_norms=table.adoption.metric not in ("ip", "l2"))
    if number > 1 and table.adoption.layout == "same-column":
        rows = np.pad(rows, ((0, 0), (0, table.adoption.dims[number] - rows.shape[1])))
    return rows
