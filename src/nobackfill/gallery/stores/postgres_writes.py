"""Writes of items to PostgreSQL: a transaction each, one at a time, so that no two wait for each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.advisory_lock import lock_key
from nobackfill.gallery.stores.base import ItemBatch, Payload
from nobackfill.gallery.stores.postgres_connection import PostgresConnection

if TYPE_CHECKING:
    from psycopg import Cursor

Value = TypeVar("Value")


class PostgresWriter:
    """Changes the items of a gallery.

    Args:
        db: where they are.
    """

    def __init__(self, db: PostgresConnection) -> None:
        self.db, self.url = db, db.url

    def insert(self, items: ItemBatch) -> None:
        """See `Store.insert`."""
        from psycopg.types.json import Jsonb

        def load(cursor: Cursor) -> None:
            statement = "COPY {items} (id, generation, payload, embedding) FROM STDIN WITH (FORMAT BINARY)"
            with cursor.copy(self.db.sql(statement)) as copy:
                copy.set_types(["text", "int4", "jsonb", self.db.kind])
                for name, payload, vector in zip(items.ids, items.payloads, items.vectors, strict=True):
                    copy.write_row((name, items.generation, Jsonb(dict(payload)), self.db.binary(vector)))

        try:
            self._write(load)
        except self.db.psycopg.errors.UniqueViolation as error:
            raise GalleryError(f"{self.url}: an item already exists; ids are unique in a gallery") from error

    def upsert(self, items: ItemBatch) -> None:
        """See `Store.upsert`."""
        from psycopg.types.json import Jsonb

        def load(cursor: Cursor) -> None:
            columns = f"place integer, id text PRIMARY KEY, payload jsonb, embedding {self.db.kind}"
            cursor.execute(f"CREATE TEMP TABLE newer ({columns}) ON COMMIT DROP")
            with cursor.copy("COPY newer FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "text", "jsonb", self.db.kind])
                rows = zip(items.ids, items.payloads, items.vectors, strict=True)
                for place, (name, payload, vector) in enumerate(rows):
                    copy.write_row((place, name, Jsonb(dict(payload)), self.db.binary(vector)))
            self.db.execute(
                cursor,
                "INSERT INTO {items} AS i (id, generation, version, payload, embedding) "
                "SELECT n.id, %s, coalesce(g.version, 0) + 1, n.payload, n.embedding "
                "FROM newer n LEFT JOIN {gone} g USING (id) ORDER BY n.place ON CONFLICT (id) DO UPDATE SET "
                "generation = excluded.generation, version = i.version + 1, payload = excluded.payload, "
                "embedding = excluded.embedding",
                (items.generation,),
            )
            self.db.execute(cursor, "DELETE FROM {kept} WHERE id = ANY(%s)", (items.ids,))

        self._write(load)

    def delete(self, ids: Sequence[str]) -> int:
        """See `Store.delete`."""

        def remove(cursor: Cursor) -> int:
            self.db.execute(
                cursor,
                "INSERT INTO {gone} SELECT id, version FROM {items} WHERE id = ANY(%s) "
                "ON CONFLICT (id) DO UPDATE SET version = excluded.version",
                (list(ids),),
            )
            for table in ("kept", "hits", "items"):
                self.db.execute(cursor, f"DELETE FROM {{{table}}} WHERE id = ANY(%s)", (list(ids),))
            return int(cursor.rowcount)

        return self._write(remove)

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        """See `Store.set_payloads`."""
        texts = [json.dumps(dict(payload)) for payload in payloads.values()]
        statement = (
            "UPDATE {items} i SET payload = n.payload::jsonb, version = i.version + 1 "
            "FROM unnest(%s::text[], %s::text[]) AS n(id, payload) WHERE i.id = n.id"
        )
        return self._write(lambda cursor: int(self.db.execute(cursor, statement, (list(payloads), texts)).rowcount))

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        """See `Store.replace`."""
        versions: Sequence[int | None] = items.versions or [None] * len(items.ids)

        def exchange(cursor: Cursor) -> list[str]:
            columns = f"id text PRIMARY KEY, version bigint, embedding {self.db.kind}"
            cursor.execute(f"CREATE TEMP TABLE newer ({columns}) ON COMMIT DROP")
            with cursor.copy("COPY newer FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["text", "int8", self.db.kind])
                for name, version, vector in zip(items.ids, versions, items.vectors, strict=True):
                    copy.write_row((name, version, self.db.binary(vector)))
            chosen = (
                "FROM newer n WHERE i.id = n.id AND i.generation < %s AND i.version = coalesce(n.version, i.version)"
            )
            if keep_old:
                self.db.execute(
                    cursor,
                    "INSERT INTO {kept} SELECT i.id, i.generation, i.embedding FROM {items} i, "
                    f"{chosen.removeprefix('FROM ')} ON CONFLICT DO NOTHING",
                    (items.generation,),
                )
            self.db.execute(
                cursor,
                f"UPDATE {{items}} i SET generation = %s, embedding = n.embedding {chosen} RETURNING i.id",
                (items.generation, items.generation),
            )
            done = {name for (name,) in cursor.fetchall()}
            return [name for name in items.ids if name not in done]

        return self._write(exchange)

    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        """See `Store.restore`."""
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
            if not missing or leave_new:
                self.db.execute(
                    cursor,
                    f"UPDATE {{items}} i SET generation = k.generation, embedding = k.embedding FROM ({best}) k "
                    "WHERE i.id = k.id AND i.generation > %s",
                    (generation, generation),
                )
                self.db.execute(
                    cursor, "DELETE FROM {kept} k USING {items} i WHERE k.id = i.id AND k.generation >= i.generation"
                )
            return missing

        return self._write(back)

    def _write(self, action: Callable[[Cursor], Value]) -> Value:
        """A transaction that changes items, one at a time: no two wait for each other, each sees the one before."""

        def alone(cursor: Cursor) -> Value:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(f"{self.db.table}\0write"),))
            return action(cursor)

        return self.db.transaction(alone)
