"""Connections to PostgreSQL with pgvector: one a thread, errors in one line, names quoted, never spliced."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import Floats, UnreachableError
from nobackfill.gallery.stores.pool import Pool

if TYPE_CHECKING:
    from pgvector import HalfVector, Vector
    from psycopg import Connection, Cursor
    from psycopg.sql import Composed

Row = tuple[Any, ...]
"""Of an answer; its columns are those of the statement."""
Value = TypeVar("Value")
PARTS = ("kept", "gone", "hits", "documents")
"""Tables of a gallery besides that of its items; named `<table>_<part>`."""
EF_SEARCH = 200  # HNSW: candidates looked at for an answer
MAX_DIM = {"vector": 2000, "halfvec": 4000}  # that pgvector indexes
HITS_PAGE = 8192  # counts read at a time
NAME_BYTES = 50  # PostgreSQL cuts names at 63 bytes, and what is added to this one takes up to 13


class PostgresConnection:
    """Of one gallery.

    Args:
        address: of the server and table; may hold a password, which no message shows.
        kind: pgvector's type of the vectors, `vector` or `halfvec`; an existing table says itself which it is.
        settings: statements that each connection begins with.
    """

    def __init__(self, address: Address, kind: str, settings: str = "") -> None:
        try:
            importlib.import_module("pgvector.psycopg")
            import psycopg
        except ImportError as error:
            raise GalleryError("postgresql: needs its extra: pip install 'nobackfill[postgres]'") from error
        self.url, self.server, self.table, self.kind = address.url, address.server, address.name or "", kind
        if len(self.table.encode()) > NAME_BYTES:
            raise GalleryError(
                f"{self.url}: the table's name has {len(self.table.encode())} bytes; expected at most {NAME_BYTES}"
            )
        self.psycopg: ModuleType = psycopg
        self.settings = settings
        self._pool: Pool[Connection] = Pool(self._opened, _usable)

    def transaction(self, action: Callable[[Cursor], Value]) -> Value:
        """Runs the action with a cursor; all it changes is there at once, or nothing."""
        with (
            self._translated(),
            self._pool.borrowed() as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            return action(cursor)

    def answers(self, statements: Sequence[tuple[str, Sequence[object]]]) -> list[list[Row]]:
        """What each of several statements answers, all sent at once: one way to the server and back.

        Each has a snapshot of its own. If one fails, the others count as failed too. Statements that come again are
        prepared by psycopg.
        """
        with self._translated(), self._pool.borrowed() as connection:
            connection.autocommit = True
            try:
                if len(statements) == 1:
                    return [connection.execute(*statements[0]).fetchall()]
                with connection.pipeline():
                    sent = [connection.execute(statement, values) for statement, values in statements]
                return [cursor.fetchall() for cursor in sent]
            finally:
                if not connection.closed:
                    connection.autocommit = False

    def rows(self, statement: str, values: tuple[object, ...] = ()) -> list[Row]:
        """A transaction of one statement that answers."""
        return self.transaction(lambda cursor: self.execute(cursor, statement, values).fetchall())

    def run(self, statement: str, values: tuple[object, ...] = ()) -> None:
        """A transaction of one statement that does not."""
        self.transaction(lambda cursor: self.execute(cursor, statement, values))

    def execute(self, cursor: Cursor, statement: str, values: tuple[object, ...] = (), **names: str) -> Cursor:
        """Run a statement in which {items}, {kept}, {gone}, {hits}, {documents} and these names are identifiers."""
        return cursor.execute(self.sql(statement, placeholders=bool(values), **names), values or None)

    def sql(self, statement: str, *, placeholders: bool = False, **names: str) -> Composed:
        """The statement with its names; where psycopg looks for placeholders, a % of a name is doubled."""
        from psycopg import sql

        tables = {"items": self.table, **{name: f"{self.table}_{name}" for name in PARTS}}
        quoted = {
            key: sql.Identifier(name.replace("%", "%%") if placeholders else name)
            for key, name in {**tables, **names}.items()
        }
        return sql.SQL(statement).format(**quoted)

    def there(self, suffix: str) -> bool:
        """Whether the gallery's table of this suffix exists."""
        return self.rows("SELECT to_regclass(quote_ident(%s))", (f"{self.table}{suffix}",))[0][0] is not None

    def vacuum(self, name: str) -> None:
        """Give back a table's space and bring its statistics up to date; no transaction can hold this."""
        with self._translated(), self._pool.borrowed() as connection:
            connection.autocommit = True
            try:
                connection.execute(self.sql(f"VACUUM ANALYZE {{{name}}}"))
            finally:
                connection.autocommit = False

    def connect(self, *, autocommit: bool) -> Connection:
        """Another connection to the same server."""
        try:
            return self.psycopg.connect(self.server, autocommit=autocommit, connect_timeout=10)
        except self.psycopg.Error as error:
            if not any(words in str(error) for words in ("server at", "server on", "host name", "timeout", "FATAL")):
                # The address was not even understood, and the message quotes what was not: perhaps the password.
                raise GalleryError(
                    f"{self.url}: this address cannot be read; write special characters of user and password as %XX"
                ) from None
            raise UnreachableError(f"{self.url}: {_first_line(error)}") from None

    def _register(self, connection: Connection) -> None:
        """Vectors travel in binary once the database has the extension; a table that is there says of which type."""
        from pgvector.psycopg import register_vector

        if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
            register_vector(connection)
        kind = connection.execute(
            "SELECT t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = to_regclass(quote_ident(%s)) AND a.attname = 'embedding'",
            (self.table,),
        ).fetchone()
        if kind:
            self.kind = kind[0]
        connection.rollback()
        if self.settings:
            connection.execute(self.settings)
            connection.commit()

    def binary(self, vector: Floats) -> HalfVector | Vector:
        """A vector as COPY sends it."""
        return as_vector(self.kind, vector)

    def close(self) -> None:
        """Another use opens connections again, which then know the types that the database has."""
        self._pool.close()

    def keep(self, connection: Connection) -> None:
        """Go on with a connection to the server that is open already, without autocommit."""
        with self._translated():
            self._register(connection)
        self._pool.add(connection)

    def _opened(self) -> Connection:
        connection = self.connect(autocommit=False)
        try:
            self._register(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the server in one line without the address, which may hold a password."""
        try:
            yield
        except self.psycopg.errors.UniqueViolation:
            raise  # whose text quotes a value: who called knows better words
        except self.psycopg.OperationalError as error:
            raise UnreachableError(f"{self.url}: {_first_line(error)}") from None
        except self.psycopg.Error as error:
            raise GalleryError(f"{self.url}: {_first_line(error)}") from None


def as_vector(kind: str, values: Floats) -> HalfVector | Vector:
    """A vector of this type of pgvector's as its client sends it."""
    import pgvector

    return pgvector.HalfVector(values) if kind == "halfvec" else pgvector.Vector(values)


def by_generation(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Rows (id, generation, …) by their generation, oldest first; in the order given within one."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(int(row[1]), []).append(row)
    return dict(sorted(groups.items()))


def _first_line(error: Exception) -> str:
    """What the server says; of a failed connection only the reason, since the rest repeats the address."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    text = str(primary or str(error).partition("\n")[0].rpartition(": ")[2] or type(error).__name__)
    return " ".join(text.split())[:200]


def _usable(connection: Connection) -> bool:
    """Whether it may be used again: one from before the database had pgvector does not know the type of vectors."""
    return not (connection.closed or connection.broken) and connection.adapters.types.get("vector") is not None
