"""Rows of a folder gallery's database as items, and the other way round."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np

from nobackfill.gallery.formats import parse_payload
from nobackfill.gallery.stores.base import Floats, ItemBatch, Payload

Row = tuple[Any, ...]
OF_IDS = "SELECT value FROM json_each(?)"
UPSERT = (
    "INSERT INTO items (id, generation, version, changed, payload, vector) VALUES "
    "(?1, ?2, coalesce((SELECT version FROM gone WHERE id = ?1), 0) + 1, ?3, ?4, ?5)"
)
UPSERT_OVER = (
    " ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, version = version + 1, "
    "changed = excluded.changed, payload = excluded.payload, vector = excluded.vector"
)


def values_of(items: ItemBatch, changed: int) -> list[Row]:
    """Values for `UPSERT`."""
    return [
        (name, items.generation, changed, text_of(payload), blob_of(vector))
        for name, payload, vector in zip(items.ids, items.payloads, items.vectors, strict=True)
    ]


def rows_of(connection: sqlite3.Connection, columns: str, ids: Sequence[str]) -> list[Row]:
    """Columns of these items; unknown ids are left out."""
    statement = f"SELECT {columns} FROM items WHERE id IN ({OF_IDS})"
    return connection.execute(statement, (json.dumps(list(ids)),)).fetchall()


def grouped(rows: Sequence[Row]) -> list[ItemBatch]:
    """Rows (generation, id, vector, payload or None, version, …), sorted by generation, as items.

    Vectors of a wrong size make a batch of their own, for `verify` to find.
    """
    return [
        ItemBatch(
            [row[1] for row in group],
            generation,
            np.frombuffer(b"".join(row[2][: 4 * (size // 4)] for row in group), "<f4").reshape(len(group), -1),
            [parse_payload(row[3]) for row in group if row[3] is not None],
            [row[4] for row in group],
        )
        for (generation, size), some in itertools.groupby(rows, key=lambda row: (int(row[0]), len(row[2])))
        for group in (list(some),)
    ]


def left_alone(connection: sqlite3.Connection, items: ItemBatch, changed: int, *, keep_old: bool) -> list[str]:
    """Replaces vectors; see `Store.replace`."""
    versions: Sequence[int | None] = items.versions or [None] * len(items.ids)
    left = []
    for name, vector, version in zip(items.ids, items.vectors, versions, strict=True):
        chosen = (name, items.generation, version)
        if keep_old:
            connection.execute(
                "INSERT OR IGNORE INTO kept SELECT id, generation, vector FROM items "
                "WHERE id = ?1 AND generation < ?2 AND version = coalesce(?3, version)",
                chosen,
            )
        done = connection.execute(
            "UPDATE items SET generation = ?2, vector = ?4, changed = ?5 "
            "WHERE id = ?1 AND generation < ?2 AND version = coalesce(?3, version)",
            (*chosen, blob_of(vector), changed),
        )
        if not done.rowcount:
            left.append(name)
    return left


def restored(connection: sqlite3.Connection, generation: int, changed: int, *, leave_new: bool) -> int:
    """See `Store.restore`."""
    best = "SELECT max(k.generation) FROM kept k WHERE k.id = items.id AND k.generation <= ?1"
    missing = int(
        connection.execute(
            f"SELECT count(*) FROM items WHERE generation > ?1 AND ({best}) IS NULL",
            (generation,),
        ).fetchone()[0]
    )
    if not missing or leave_new:
        connection.execute(
            "UPDATE items SET changed = ?2, "
            f"vector = (SELECT vector FROM kept WHERE kept.id = items.id AND kept.generation = ({best})), "
            f"generation = ({best}) WHERE generation > ?1 AND ({best}) IS NOT NULL",
            (generation, changed),
        )
        connection.execute(
            "DELETE FROM kept WHERE generation >= (SELECT generation FROM items WHERE items.id = kept.id)"
        )
    return missing


def text_of(payload: Payload) -> str:
    """A payload as it is stored."""
    return json.dumps(dict(payload), ensure_ascii=False)


def blob_of(vector: Floats) -> bytes:
    """A vector as it is stored: little-endian float32."""
    return vector.astype("<f4", copy=False).tobytes()
