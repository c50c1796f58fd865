"""A gallery in PostgreSQL with pgvector: one table of items, its vectors searched by generation.

    <table>               id, seq, generation, version, payload, embedding
    <table>_kept          vectors of older generations, kept for a rollback
    <table>_gone          versions of removed items, so that one that comes again is not taken for the former
    <table>_hits          how often searches returned an item, if they count
    <table>_documents     manifest and journal

Names are quoted by psycopg and never spliced into text; ids, payloads and vectors travel as parameters or by COPY. What
is formatted into statements are integers and the name of the vector type. Credentials come from the URL or from libpq's
environment, and no message shows them. Needs pgvector 0.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.advisory_lock import advisory_lock
from nobackfill.gallery.stores.base import CREATING, Floats, ItemBatch, Nearest, Payload, Store
from nobackfill.gallery.stores.postgres_connection import (
    EF_SEARCH,
    HITS_PAGE,
    MAX_DIM,
    PARTS,
    PostgresConnection,
    Row,
    by_generation,
)
from nobackfill.gallery.stores.postgres_filters import filter_sql
from nobackfill.gallery.stores.postgres_writes import PostgresWriter
from nobackfill.gallery.stores.sampling import sampled

if TYPE_CHECKING:
    from psycopg import Cursor


class PostgresStore(Store):
    """See the module; `halfvec="true"` stores half precision."""

    def __init__(self, address: Address, halfvec: str = "false") -> None:
        self.db: PostgresConnection = PostgresConnection(address, "halfvec" if halfvec == "true" else "vector")
        self.writer: PostgresWriter = PostgresWriter(self.db)
        self.url = address.url

    def read(self, name: str) -> bytes | None:
        if not self.db.there("_documents"):
            return None
        rows = self.db.rows("SELECT data FROM {documents} WHERE name = %s", (name,))
        return bytes(rows[0][0]) if rows else None

    def write(self, name: str, data: bytes | None) -> None:
        if data is None:
            self.db.run("DELETE FROM {documents} WHERE name = %s", (name,))
            return
        self.db.run(
            "INSERT INTO {documents} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET data = excluded.data",
            (name, data),
        )

    def create(self) -> None:
        if self.db.there("") or self.db.there("_documents"):
            raise GalleryError(f"{self.url}: the table exists; choose another name or drop it")
        kind = self.db.kind
        statements = (
            "CREATE EXTENSION IF NOT EXISTS vector",
            "CREATE TABLE {items} (id text PRIMARY KEY, seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE, "
            "generation integer NOT NULL, version bigint NOT NULL DEFAULT 1, payload jsonb NOT NULL, "
            f"embedding {kind} NOT NULL)",
            "CREATE INDEX ON {items} (generation, seq)",
            f"CREATE TABLE {{kept}} (id text, generation integer, embedding {kind} NOT NULL, "
            "PRIMARY KEY (id, generation))",
            "CREATE TABLE {gone} (id text PRIMARY KEY, version bigint NOT NULL)",
            "CREATE TABLE {hits} (id text PRIMARY KEY, hits bigint NOT NULL)",
            "CREATE TABLE {documents} (name text PRIMARY KEY, data bytea NOT NULL)",
        )

        def make(cursor: Cursor) -> None:
            for statement in statements:
                self.db.execute(cursor, statement)
            self.db.execute(cursor, "INSERT INTO {documents} VALUES (%s, %s)", (CREATING, b"{}"))

        try:
            self.db.transaction(make)
        except self.db.psycopg.errors.UniqueViolation:  # by another process, since we looked
            raise GalleryError(f"{self.url}: the table exists; choose another name or drop it") from None
        self.db.close()

    def drop(self) -> None:
        if not self.db.there("_documents"):
            raise GalleryError(f"{self.url}: no gallery there; nothing was removed")
        tables = ("items", *PARTS)
        self.db.transaction(
            lambda cursor: [self.db.execute(cursor, f"DROP TABLE IF EXISTS {{{name}}}") for name in tables]
        )

    def add_generation(self, number: int, dim: int) -> None:
        """An HNSW index over the generation's own rows; new and replaced rows enter it as they come."""
        index, kind = f"{self.db.table}_hnsw_{number}", self.db.kind

        def make(cursor: Cursor) -> None:
            self.db.execute(cursor, "DROP INDEX IF EXISTS {index}", index=index)
            if dim <= MAX_DIM[kind]:
                self.db.execute(
                    cursor,
                    f"CREATE INDEX {{index}} ON {{items}} USING hnsw ((embedding::{kind}({int(dim)})) "
                    f"{kind}_ip_ops) WHERE generation = {int(number)}",
                    index=index,
                )

        self.db.transaction(make)

    def insert(self, items: ItemBatch) -> None:
        self.writer.insert(items)

    def upsert(self, items: ItemBatch) -> None:
        self.writer.upsert(items)

    def delete(self, ids: Sequence[str]) -> int:
        return self.writer.delete(ids)

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        return self.writer.set_payloads(payloads)

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        return self.writer.replace(items, keep_old=keep_old)

    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        return self.writer.restore(generation, leave_new=leave_new)

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        return dict(self.db.rows("SELECT id, version FROM {items} WHERE id = ANY(%s)", (list(ids),)))

    def search(self, queries: Mapping[int, Floats], k: int, where: Filter | None = None) -> dict[int, Nearest]:
        def look(cursor: Cursor) -> dict[int, Nearest]:
            # One snapshot for all generations: an item that moves meanwhile is seen once, where it was.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            cursor.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(EF_SEARCH, k))}")
            if where is not None:  # an index would look at so many items only, and few of them may fulfil it
                cursor.execute("SET LOCAL enable_indexscan = off")
            return {number: self._nearest(cursor, number, rows, k, where) for number, rows in queries.items()}

        return self.db.transaction(look)

    def counts(self, where: Filter | None = None) -> dict[int, int]:
        condition, values = filter_sql(where or ())
        statement = f"SELECT generation, count(*) FROM {{items}} WHERE {condition} GROUP BY generation"
        return {int(number): int(count) for number, count in sorted(self.db.rows(statement, tuple(values)))}

    def ids(self, generation: int, size: int = 8192, where: Filter | None = None) -> Iterator[list[str]]:
        condition, values = filter_sql(where or ())
        statement = (
            f"SELECT id, seq FROM {{items}} WHERE generation = %s AND seq > %s AND {condition} ORDER BY seq LIMIT %s"
        )
        last = -1
        while rows := self.db.rows(statement, (generation, last, *values, size)):
            last = rows[-1][1]
            yield [name for name, _ in rows]

    def sample(self, count: int, seed: int) -> list[str]:
        low, high = self.db.rows("SELECT min(seq), max(seq) FROM {items}")[0]
        if low is None:
            return []

        def look_up(numbers: list[int]) -> dict[int, str]:
            return dict(self.db.rows("SELECT seq, id FROM {items} WHERE seq = ANY(%s)", (numbers,)))

        return sampled(low, high, count, seed, look_up)

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        return _grouped(
            self.db.rows(
                "SELECT id, generation, embedding::text, version, payload FROM {items} WHERE id = ANY(%s) "
                "ORDER BY generation, seq",
                (list(ids),),
            )
        )

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        return dict(self.db.rows("SELECT id, payload FROM {items} WHERE id = ANY(%s)", (list(ids),)))

    def scan(self, size: int) -> Iterator[ItemBatch]:
        statement = (
            "SELECT id, generation, embedding::text, version, seq FROM {items} WHERE seq > %s ORDER BY seq LIMIT %s"
        )
        last = -1
        while rows := self.db.rows(statement, (last, size)):
            last = rows[-1][4]
            yield from _grouped([row[:4] for row in rows])

    def count_hits(self, hits: Mapping[str, int]) -> None:
        ids = sorted(hits)  # in one order by all, so that two do not wait for each other
        self.db.run(
            "INSERT INTO {hits} AS h SELECT * FROM unnest(%s::text[], %s::bigint[]) "
            "ON CONFLICT (id) DO UPDATE SET hits = h.hits + excluded.hits",
            (ids, [hits[name] for name in ids]),
        )

    def hits(self) -> Iterator[tuple[str, int]]:
        statement = (
            "SELECT id, hits FROM {hits} WHERE hits < %s OR (hits = %s AND id > %s) ORDER BY hits DESC, id LIMIT %s"
        )
        last = (2**62, "")
        while rows := self.db.rows(statement, (last[0], *last, HITS_PAGE)):
            last = (rows[-1][1], rows[-1][0])
            yield from rows

    def compact(self, *, forget_kept: bool) -> None:
        if forget_kept:
            self.db.run("TRUNCATE {kept}")
        self.db.vacuum("items")

    def lock(self, name: str = "gallery") -> AbstractContextManager[Callable[[], None]]:
        return advisory_lock(self.db, f"{self.db.table}\0{name}")

    def close(self) -> None:
        self.db.close()

    def _nearest(self, cursor: Cursor, number: int, queries: Floats, k: int, where: Filter | None) -> Nearest:
        kind = self.db.kind
        condition, values = filter_sql(where or ())
        typed = f"embedding::{kind}({queries.shape[1]})"
        statement = (
            f"SELECT id, -({typed} <#> %s::{kind}) FROM {{items}} WHERE generation = {int(number)} "
            f"AND {condition} ORDER BY {typed} <#> %s::{kind} LIMIT %s"
        )
        answers = [
            self.db.execute(cursor, statement, (_text(row), *values, _text(row), k)).fetchall() for row in queries
        ]
        return Nearest(
            [[name for name, _ in rows] for rows in answers],
            [np.array([score for _, score in rows], np.float32) for rows in answers],
        )


def _grouped(rows: Sequence[Row]) -> list[ItemBatch]:
    """Rows (id, generation, vector as text, version, maybe payload) as items, a batch for each generation."""
    return [
        ItemBatch(
            [row[0] for row in group],
            number,
            np.stack([np.fromstring(row[2][1:-1], np.float32, sep=",") for row in group]),
            [row[4] for row in group if len(row) > 4],
            [row[3] for row in group],
        )
        for number, group in by_generation(rows).items()
    ]


def _text(vector: Floats) -> str:
    """A vector as pgvector reads it; nine digits give every float32 back exactly."""
    return "[" + ",".join(f"{value:.9g}" for value in vector.tolist()) + "]"
