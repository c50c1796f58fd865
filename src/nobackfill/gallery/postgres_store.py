"""A gallery in PostgreSQL with pgvector: one table of items, its vectors searched by generation.

    <table>               id, seq, generation, payload, embedding
    <table>_kept          vectors of older generations, kept for a rollback
    <table>_documents     manifest and journal

Names are quoted by psycopg and never spliced into text; ids, payloads and vectors travel as parameters or by COPY. What
is formatted into statements are integers and the name of the vector type. Credentials come from the URL or from libpq's
environment, and no message shows them. Needs pgvector 0.8.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import Floats
from nobackfill.gallery.store import Found, Items, Payload, UnreachableError, lock_lost, without_credentials

Value = TypeVar("Value")
EF_SEARCH = 200  # HNSW: candidates looked at for an answer


class PostgresStore:
    """See the module; `postgresql://user:password@host/db#table`, `halfvec` stores half precision."""

    def __init__(self, url: str, *, halfvec: bool = False) -> None:
        try:
            import pgvector.psycopg  # noqa: F401, PLC0415
            import psycopg  # noqa: PLC0415
        except ImportError as error:
            raise GalleryError("postgresql: needs its extra: pip install 'nobackfill[postgres]'") from error
        self.address, _, table = url.partition("#")
        self.url = without_credentials(url)
        if not table or len(table) > 50:
            raise GalleryError(f"{self.url}: expected postgresql://…#table with a table name of at most 50 characters")
        self.table, self.kind = table, "halfvec" if halfvec else "vector"
        self.psycopg: Any = psycopg
        self._connection: Any = None

    def read(self, name: str) -> bytes | None:  # noqa: D102
        if not self._there("_documents"):
            return None
        found = self._rows("SELECT data FROM {documents} WHERE name = %s", (name,))
        return bytes(found[0][0]) if found else None

    def write(self, name: str, data: bytes | None) -> None:  # noqa: D102
        if data is None:
            self._run("DELETE FROM {documents} WHERE name = %s", (name,))
            return
        self._run(
            "INSERT INTO {documents} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET data = excluded.data",
            (name, data),
        )

    def create(self) -> None:  # noqa: D102
        if self._there("") or self._there("_documents"):
            raise GalleryError(f"{self.url}: the table exists; choose another name or drop it")

        def make(cursor: Any) -> None:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            self._execute(
                cursor,
                f"CREATE TABLE {{items}} (id text PRIMARY KEY, seq bigint GENERATED ALWAYS AS IDENTITY, "
                f"generation integer NOT NULL, payload jsonb NOT NULL, embedding {self.kind} NOT NULL)",
            )
            self._execute(cursor, "CREATE INDEX ON {items} (generation, seq)")
            self._execute(
                cursor,
                f"CREATE TABLE {{kept}} (id text, generation integer, embedding {self.kind} NOT NULL, "
                "PRIMARY KEY (id, generation))",
            )
            self._execute(cursor, "CREATE TABLE {documents} (name text PRIMARY KEY, data bytea NOT NULL)")

        try:
            self._transaction(make)
        except self.psycopg.errors.UniqueViolation:  # by another process, since we looked
            raise GalleryError(f"{self.url}: the table exists; choose another name or drop it") from None
        self._register()

    def add_generation(self, number: int, dim: int) -> None:
        """An HNSW index over the generation's own rows; new and exchanged rows enter it as they come."""
        index = f"{self.table}_hnsw_{number}"

        def make(cursor: Any) -> None:
            self._execute(cursor, "DROP INDEX IF EXISTS {index}", index=index)
            limit = 4000 if self.kind == "halfvec" else 2000  # pgvector's own
            if dim <= limit:
                self._execute(
                    cursor,
                    f"CREATE INDEX {{index}} ON {{items}} USING hnsw ((embedding::{self.kind}({int(dim)})) "
                    f"{self.kind}_ip_ops) WHERE generation = {int(number)}",
                    index=index,
                )

        self._transaction(make)

    def insert(self, items: Items) -> None:  # noqa: D102
        from psycopg.types.json import Jsonb  # noqa: PLC0415

        def load(cursor: Any) -> None:
            statement = "COPY {items} (id, generation, payload, embedding) FROM STDIN WITH (FORMAT BINARY)"
            with cursor.copy(self._sql(statement)) as copy:
                copy.set_types(["text", "int4", "jsonb", self.kind])
                for name, payload, vector in zip(items.ids, items.payloads, items.vectors, strict=True):
                    copy.write_row((name, items.generation, Jsonb(dict(payload)), self._binary(vector)))

        try:
            self._transaction(load)
        except self.psycopg.errors.UniqueViolation as error:
            raise GalleryError(f"{self.url}: an item is there already; ids are unique in a gallery") from error

    def replace(self, items: Items, *, keep_old: bool) -> None:  # noqa: D102
        def exchange(cursor: Any) -> None:
            cursor.execute(f"CREATE TEMP TABLE exchanged (id text PRIMARY KEY, embedding {self.kind}) ON COMMIT DROP")
            with cursor.copy("COPY exchanged FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["text", self.kind])
                for name, vector in zip(items.ids, items.vectors, strict=True):
                    copy.write_row((name, self._binary(vector)))
            if keep_old:
                self._execute(
                    cursor,
                    "INSERT INTO {kept} SELECT i.id, i.generation, i.embedding FROM {items} i JOIN exchanged e "
                    "USING (id) WHERE i.generation < %s ON CONFLICT DO NOTHING",
                    (items.generation,),
                )
            self._execute(
                cursor,
                "UPDATE {items} i SET generation = %s, embedding = e.embedding FROM exchanged e WHERE i.id = e.id",
                (items.generation,),
            )
            if cursor.rowcount != len(items.ids):
                raise GalleryError(f"{self.url}: {len(items.ids) - cursor.rowcount} items are not there to replace")

        self._transaction(exchange)

    def search(self, queries: Mapping[int, Floats], k: int) -> dict[int, Found]:  # noqa: D102
        def look(cursor: Any) -> dict[int, Found]:
            # One snapshot for all generations: an item that moves meanwhile is seen once, where it was.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            cursor.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(EF_SEARCH, k))}")
            found = {}
            for number, rows in queries.items():
                typed = f"embedding::{self.kind}({rows.shape[1]})"
                statement = (
                    f"SELECT id, -({typed} <#> %s::{self.kind}) FROM {{items}} WHERE generation = {int(number)} "  # noqa: S608
                    f"ORDER BY {typed} <#> %s::{self.kind} LIMIT %s"
                )
                answers = [self._execute(cursor, statement, (_text(row), _text(row), k)).fetchall() for row in rows]
                found[number] = Found(
                    [[name for name, _ in line] for line in answers],
                    [np.array([score for _, score in line], np.float32) for line in answers],
                )
            return found

        return self._transaction(look)

    def counts(self) -> dict[int, int]:  # noqa: D102
        rows = self._rows("SELECT generation, count(*) FROM {items} GROUP BY generation ORDER BY generation")
        return {int(number): int(count) for number, count in rows}

    def ids(self, generation: int) -> list[str]:  # noqa: D102
        rows = self._rows("SELECT id FROM {items} WHERE generation = %s ORDER BY seq", (generation,))
        return [name for (name,) in rows]

    def fetch(self, ids: Sequence[str]) -> list[Items]:  # noqa: D102
        return _grouped(
            self._rows(
                "SELECT id, generation, payload, embedding::text FROM {items} WHERE id = ANY(%s) "
                "ORDER BY generation, seq",
                (list(ids),),
            )
        )

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:  # noqa: D102
        return dict(self._rows("SELECT id, payload FROM {items} WHERE id = ANY(%s)", (list(ids),)))

    def scan(self, size: int) -> Iterator[Items]:  # noqa: D102
        last = 0
        while True:
            rows = self._rows(
                "SELECT id, generation, payload, embedding::text, seq FROM {items} WHERE seq > %s "
                "ORDER BY seq LIMIT %s",
                (last, size),
            )
            if not rows:
                return
            last = rows[-1][4]
            yield from _grouped([row[:4] for row in rows])

    def restore(self, generation: int) -> int:  # noqa: D102
        best = (
            "SELECT DISTINCT ON (id) id, generation, embedding FROM {kept} WHERE generation <= %s "
            "ORDER BY id, generation DESC"
        )

        def back(cursor: Any) -> int:
            self._execute(
                cursor,
                "SELECT count(*) FROM {items} i WHERE generation > %s AND NOT EXISTS "
                "(SELECT 1 FROM {kept} k WHERE k.id = i.id AND k.generation <= %s)",
                (generation, generation),
            )
            missing = int(cursor.fetchone()[0])
            if not missing:
                self._execute(
                    cursor,
                    f"UPDATE {{items}} i SET generation = k.generation, embedding = k.embedding FROM ({best}) k "  # noqa: S608
                    "WHERE i.id = k.id AND i.generation > %s",
                    (generation, generation),
                )
                self._execute(cursor, "DELETE FROM {kept} WHERE generation >= %s", (generation,))
            return missing

        return self._transaction(back)

    def compact(self) -> None:  # noqa: D102
        self._run("TRUNCATE {kept}")
        connection = self._connect()
        with _translated(self.psycopg, self.url):
            connection.autocommit = True
            try:
                connection.execute(self._sql("VACUUM ANALYZE {items}"))
            finally:
                connection.autocommit = False

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """A session's advisory lock, on a connection of its own: the server lets go of it when the owner is gone."""
        key = int.from_bytes(hashlib.sha256(self.table.encode()).digest()[:8], "big", signed=True)
        connection = self._connected(autocommit=True)
        with contextlib.closing(connection):
            if not connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()[0]:
                raise GalleryError(f"{self.url}: another process is changing this gallery; wait for it to end")

            def check() -> None:
                try:
                    connection.execute("SELECT 1")
                except self.psycopg.Error as error:
                    raise GalleryError(lock_lost(self.url)) from error

            yield check

    def close(self) -> None:  # noqa: D102
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Any:
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connection = self._connected(autocommit=False)
            with _translated(self.psycopg, self.url):
                self._register()
        return self._connection

    def _connected(self, *, autocommit: bool) -> Any:
        try:
            return self.psycopg.connect(self.address, autocommit=autocommit, connect_timeout=10)
        except self.psycopg.Error as error:
            if not any(words in str(error) for words in ("server at", "server on", "host name", "timeout", "FATAL")):
                # The address was not even understood, and the message quotes what was not: perhaps the password.
                raise GalleryError(
                    f"{self.url}: this address cannot be read; write special characters of user and password as %XX"
                ) from None
            raise UnreachableError(f"{self.url}: {_first_line(error)}") from None

    def _register(self) -> None:
        """Vectors travel in binary once the database has the extension; a table that is there says of which type."""
        from pgvector.psycopg import register_vector  # noqa: PLC0415

        found = self._connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone()
        if found:
            register_vector(self._connection)
        kind = self._connection.execute(
            "SELECT t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = to_regclass(quote_ident(%s)) AND a.attname = 'embedding'",
            (self.table,),
        ).fetchone()
        if kind:
            self.kind = kind[0]
        self._connection.rollback()

    def _sql(self, statement: str, **names: str) -> Any:
        from psycopg import sql  # noqa: PLC0415

        tables = {"items": self.table, "kept": f"{self.table}_kept", "documents": f"{self.table}_documents", **names}
        return sql.SQL(statement).format(**{name: sql.Identifier(table) for name, table in tables.items()})

    def _execute(self, cursor: Any, statement: str, values: tuple[Any, ...] = (), **names: str) -> Any:
        return cursor.execute(self._sql(statement, **names), values or None)

    def _binary(self, vector: Floats) -> Any:
        import pgvector  # noqa: PLC0415

        return pgvector.HalfVector(vector) if self.kind == "halfvec" else pgvector.Vector(vector)

    def _transaction(self, action: Callable[[Any], Value]) -> Value:
        connection = self._connect()
        with _translated(self.psycopg, self.url), connection.transaction(), connection.cursor() as cursor:
            return action(cursor)

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return self._transaction(lambda cursor: self._execute(cursor, statement, values).fetchall())

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        self._transaction(lambda cursor: self._execute(cursor, statement, values))

    def _there(self, suffix: str) -> bool:
        found = self._rows("SELECT to_regclass(quote_ident(%s))", (f"{self.table}{suffix}",))
        return found[0][0] is not None


@contextlib.contextmanager
def _translated(psycopg: Any, url: str) -> Iterator[None]:
    """Errors of the server in one line without the address, which may hold a password."""
    try:
        yield
    except psycopg.errors.UniqueViolation:
        raise
    except psycopg.OperationalError as error:
        raise UnreachableError(f"{url}: {_first_line(error)}") from None
    except psycopg.Error as error:
        raise GalleryError(f"{url}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    """What the server says; of a failed connection only the reason, since the rest repeats the address."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    text = str(primary or str(error).partition("\n")[0].rpartition(": ")[2] or type(error).__name__)
    return " ".join(text.split())[:200]


def _grouped(rows: Sequence[Any]) -> list[Items]:
    """Rows (id, generation, payload, vector as text) as items, a generation each."""
    groups: dict[int, list[Any]] = {}
    for row in rows:
        groups.setdefault(int(row[1]), []).append(row)
    return [
        Items(
            [row[0] for row in group],
            number,
            np.stack([np.fromstring(row[3][1:-1], np.float32, sep=",") for row in group]),
            [row[2] for row in group],
        )
        for number, group in groups.items()
    ]


def _text(vector: Floats) -> str:
    """A vector as pgvector reads it; nine digits give every float32 back exactly."""
    return "[" + ",".join(f"{value:.9g}" for value in vector.tolist()) + "]"
