"""A gallery in PostgreSQL with pgvector: one table of items, its vectors searched by generation.

    <table>               id, seq, generation, payload, embedding
    <table>_kept          vectors of older generations, kept for a rollback
    <table>_hits          how often searches returned an item, if they count
    <table>_documents     manifest and journal

Names are quoted by psycopg and never spliced into text; ids, payloads and vectors travel as parameters or by COPY. What
is formatted into statements are integers and the name of the vector type. Credentials come from the URL or from libpq's
environment, and no message shows them. Needs pgvector 0.8.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import Floats, ItemBatch, Nearest, Payload, Store, lock_lost, lock_taken
from nobackfill.gallery.stores.postgres_connection import PostgresConnection, Row
from nobackfill.gallery.stores.sampling import sampled

if TYPE_CHECKING:
    from psycopg import Cursor

EF_SEARCH = 200  # HNSW: candidates looked at for an answer
MAX_DIM = {"vector": 2000, "halfvec": 4000}  # that pgvector indexes
HITS_PAGE = 8192


class PostgresStore(Store):
    """See the module; `halfvec="true"` stores half precision."""

    def __init__(self, address: Address, halfvec: str = "false") -> None:
        self.db = PostgresConnection(address, "halfvec" if halfvec == "true" else "vector")
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
            f"generation integer NOT NULL, payload jsonb NOT NULL, embedding {kind} NOT NULL)",
            "CREATE INDEX ON {items} (generation, seq)",
            f"CREATE TABLE {{kept}} (id text, generation integer, embedding {kind} NOT NULL, "
            "PRIMARY KEY (id, generation))",
            "CREATE TABLE {hits} (id text PRIMARY KEY, hits bigint NOT NULL)",
            "CREATE TABLE {documents} (name text PRIMARY KEY, data bytea NOT NULL)",
        )
        try:
            self.db.transaction(lambda cursor: [self.db.execute(cursor, statement) for statement in statements])
        except self.db.psycopg.errors.UniqueViolation:  # by another process, since we looked
            raise GalleryError(f"{self.url}: the table exists; choose another name or drop it") from None
        self.db.register()

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
        from psycopg.types.json import Jsonb

        def load(cursor: Cursor) -> None:
            statement = "COPY {items} (id, generation, payload, embedding) FROM STDIN WITH (FORMAT BINARY)"
            with cursor.copy(self.db.sql(statement)) as copy:
                copy.set_types(["text", "int4", "jsonb", self.db.kind])
                for name, payload, vector in zip(items.ids, items.payloads, items.vectors, strict=True):
                    copy.write_row((name, items.generation, Jsonb(dict(payload)), self.db.binary(vector)))

        try:
            self.db.transaction(load)
        except self.db.psycopg.errors.UniqueViolation as error:
            raise GalleryError(f"{self.url}: an item already exists; ids are unique in a gallery") from error

    def replace(self, items: ItemBatch, *, keep_old: bool) -> None:
        def exchange(cursor: Cursor) -> None:
            cursor.execute(f"CREATE TEMP TABLE newer (id text PRIMARY KEY, embedding {self.db.kind}) ON COMMIT DROP")
            with cursor.copy("COPY newer FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["text", self.db.kind])
                for name, vector in zip(items.ids, items.vectors, strict=True):
                    copy.write_row((name, self.db.binary(vector)))
            if keep_old:
                self.db.execute(
                    cursor,
                    "INSERT INTO {kept} SELECT i.id, i.generation, i.embedding FROM {items} i JOIN newer n USING (id) "
                    "WHERE i.generation < %s ON CONFLICT DO NOTHING",
                    (items.generation,),
                )
            self.db.execute(
                cursor,
                "UPDATE {items} i SET generation = %s, embedding = n.embedding FROM newer n WHERE i.id = n.id",
                (items.generation,),
            )
            if cursor.rowcount != len(items.ids):
                raise GalleryError(
                    f"{self.url}: items to replace that do not exist: {len(items.ids) - cursor.rowcount}"
                )

        self.db.transaction(exchange)

    def search(self, queries: Mapping[int, Floats], k: int) -> dict[int, Nearest]:
        def look(cursor: Cursor) -> dict[int, Nearest]:
            # One snapshot for all generations: an item that moves meanwhile is seen once, where it was.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            cursor.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(EF_SEARCH, k))}")
            return {number: self._nearest(cursor, number, rows, k) for number, rows in queries.items()}

        return self.db.transaction(look)

    def counts(self) -> dict[int, int]:
        rows = self.db.rows("SELECT generation, count(*) FROM {items} GROUP BY generation ORDER BY generation")
        return {int(number): int(count) for number, count in rows}

    def ids(self, generation: int, size: int = 8192) -> Iterator[list[str]]:
        statement = "SELECT id, seq FROM {items} WHERE generation = %s AND seq > %s ORDER BY seq LIMIT %s"
        last = -1
        while rows := self.db.rows(statement, (generation, last, size)):
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
                "SELECT id, generation, embedding::text, payload FROM {items} WHERE id = ANY(%s) "
                "ORDER BY generation, seq",
                (list(ids),),
            )
        )

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        return dict(self.db.rows("SELECT id, payload FROM {items} WHERE id = ANY(%s)", (list(ids),)))

    def scan(self, size: int) -> Iterator[ItemBatch]:
        statement = "SELECT id, generation, embedding::text, seq FROM {items} WHERE seq > %s ORDER BY seq LIMIT %s"
        last = -1
        while rows := self.db.rows(statement, (last, size)):
            last = rows[-1][3]
            yield from _grouped([row[:3] for row in rows])

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

    def restore(self, generation: int) -> int:
        best = (
            "SELECT DISTINCT ON (id) id, generation, embedding FROM {kept} WHERE generation <= %s "
            "ORDER BY id, generation DESC"
        )

        def back(cursor: Cursor) -> int:
            self.db.execute(
                cursor,
                "SELECT count(*) FROM {items} i WHERE generation > %s AND NOT EXISTS "
                "(SELECT 1 FROM {kept} k WHERE k.id = i.id AND k.generation <= %s)",
                (generation, generation),
            )
            missing = int(cursor.fetchone()[0])
            if not missing:
                self.db.execute(
                    cursor,
                    f"UPDATE {{items}} i SET generation = k.generation, embedding = k.embedding FROM ({best}) k "  # noqa: S608
                    "WHERE i.id = k.id AND i.generation > %s",
                    (generation, generation),
                )
                self.db.execute(cursor, "DELETE FROM {kept} WHERE generation >= %s", (generation,))
            return missing

        return self.db.transaction(back)

    def compact(self, *, forget_kept: bool) -> None:
        if forget_kept:
            self.db.run("TRUNCATE {kept}")
        self.db.vacuum("items")

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """A session's advisory lock, on a connection of its own: the server lets go of it when the owner is gone."""
        key = int.from_bytes(hashlib.sha256(self.db.table.encode()).digest()[:8], "big", signed=True)
        with contextlib.closing(self.db.connect(autocommit=True)) as connection:
            if not connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()[0]:
                raise lock_taken(self.url)

            def check() -> None:
                try:
                    connection.execute("SELECT 1")
                except self.db.psycopg.Error as error:
                    raise lock_lost(self.url) from error

            try:
                yield check
            finally:  # closing the connection would do, but the server notices that a little later
                with contextlib.suppress(self.db.psycopg.Error):
                    connection.execute("SELECT pg_advisory_unlock(%s)", (key,))

    def close(self) -> None:
        self.db.close()

    def _nearest(self, cursor: Cursor, number: int, queries: Floats, k: int) -> Nearest:
        kind = self.db.kind
        typed = f"embedding::{kind}({queries.shape[1]})"
        statement = (
            f"SELECT id, -({typed} <#> %s::{kind}) FROM {{items}} WHERE generation = {int(number)} "  # noqa: S608
            f"ORDER BY {typed} <#> %s::{kind} LIMIT %s"
        )
        answers = [self.db.execute(cursor, statement, (_text(row), _text(row), k)).fetchall() for row in queries]
        return Nearest(
            [[name for name, _ in rows] for rows in answers],
            [np.array([score for _, score in rows], np.float32) for rows in answers],
        )


def _grouped(rows: Sequence[Row]) -> list[ItemBatch]:
    """Rows (id, generation, vector as text, maybe payload) as items, a batch for each generation."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(int(row[1]), []).append(row)
    return [
        ItemBatch(
            [row[0] for row in group],
            number,
            np.stack([np.fromstring(row[2][1:-1], np.float32, sep=",") for row in group]),
            [row[3] for row in group if len(row) > 3],
        )
        for number, group in groups.items()
    ]


def _text(vector: Floats) -> str:
    """A vector as pgvector reads it; nine digits give every float32 back exactly."""
    return "[" + ",".join(f"{value:.9g}" for value in vector.tolist()) + "]"
