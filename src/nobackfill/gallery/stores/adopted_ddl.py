"""Changes of the schema around an adopted table: shown first, made under short locks, undone without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.adopted_layout import (
    FIRST_NEW,
    Adoption,
    Table,
    column,
    columns,
    stamp_column,
    writer_column,
)
from nobackfill.gallery.stores.adopted_partitions import build_indexes, index_of, partitions
from nobackfill.gallery.stores.adopted_sql import plain, quoted, table_of
from nobackfill.gallery.stores.adopted_table import COLUMNS
from nobackfill.gallery.stores.postgres_connection import MAX_DIM

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

    from nobackfill.gallery.stores.postgres_connection import PostgresConnection

LOCK_MILLISECONDS = 50  # that a change waits for its lock: readers and writers that come later wait behind it
PATIENCE = 60.0  # seconds to go on trying
FOUND_COLUMNS = (
    "SELECT DISTINCT substring(attname from '^nobackfill_([0-9]+)(?:_of|_by)?$')::integer AS number "
    "FROM pg_attribute "
    "WHERE attrelid = to_regclass(%s) AND NOT attisdropped AND attname ~ '^nobackfill_[0-9]+(_of|_by)?$' "
    "ORDER BY number"
)


@dataclass(frozen=True)
class Change:
    """One statement, with % doubled, and a query that says whether it was made already."""

    statement: str
    there: str
    values: tuple[str, ...]


def side_changes(adoption: Adoption, id_type: str, kind: str) -> list[Change]:
    """What adopting a table makes; the table itself is left as it is."""
    side = quoted(adoption.side)
    tables = {
        "documents": "name text PRIMARY KEY, data bytea NOT NULL",
        "hits": "id text PRIMARY KEY, hits bigint NOT NULL",
    }
    if adoption.layout == "same-column":
        tables["generations"] = (
            f"id {id_type} PRIMARY KEY, generation integer NOT NULL, stamp bytea NOT NULL, writer xid"
        )
        tables["kept"] = f"id {id_type}, generation integer, embedding {kind} NOT NULL, PRIMARY KEY (id, generation)"
    schema = Change(f"CREATE SCHEMA {side}", "SELECT 1 FROM pg_namespace WHERE nspname = %s", (adoption.side,))
    there = "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = %s"
    return [
        schema,
        *(
            Change(f"CREATE TABLE {side}.{name} ({columns})", there, (adoption.side, name))
            for name, columns in tables.items()
        ),
    ]


def column_change(table: Table, number: int, dim: int) -> list[Change]:
    """What a later generation adds to the table: nullable columns without a default, so that no row is rewritten."""
    adoption = table.adoption
    if adoption.layout == "same-column":
        return []
    # The vector comes last: a search looks at the others of every row, and would have to step over it for them.
    statement = (
        f"ALTER TABLE {table_of(adoption)} ADD COLUMN {writer_column(number)} xid, "
        f"ADD COLUMN {stamp_column(number)} bytea, ADD COLUMN {column(number)} {table.kind}({int(dim)})"
    )
    there = (
        "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped "
        "AND format_type(atttypid, atttypmod) = %s"
    )
    return [Change(statement, there, (plain(table_of(adoption)), column(number), f"{table.kind}({int(dim)})"))]


def index_statement(table: Table, number: int, dim: int, name: str | None = None) -> str | None:
    """An index over the new column, where the application's own column has one that searches can use."""
    method = index_method(table, number, dim)
    if method is None:
        return None
    name = quoted(name or index_name(table.adoption, number))
    how = f"INDEX {name} ON ONLY" if table.partitioned else f"INDEX CONCURRENTLY {name} ON"
    return f"CREATE {how} {table_of(table.adoption)} {method}"


def index_method(table: Table, number: int, dim: int) -> str | None:
    """The part of that statement which says how, the same for all partitions of a table."""
    adoption = table.adoption
    if adoption.layout == "same-column" or adoption.metric is None or dim > MAX_DIM[table.kind]:
        return None
    options = f" WITH ({adoption.index_options})" if adoption.index_options else ""
    return f"USING hnsw ({column(number)} {table.kind}_ip_ops){options}"


def index_name(adoption: Adoption, number: int) -> str:
    """Unique in the table's schema, unless an earlier gallery left one."""
    return f"{adoption.side}_{number}"


def drop_columns(adoption: Adoption, numbers: Sequence[int], leave: int | None = None) -> str:
    """Takes columns of later generations away; `leave` keeps its vectors, but not what it was made for."""
    names = [name for number in numbers for name in columns(number) if (number, name) != (leave, column(leave or 0))]
    return f"ALTER TABLE {table_of(adoption)} " + ", ".join(f"DROP COLUMN IF EXISTS {name}" for name in names)


def newest_held(cursor: Cursor, adoption: Adoption) -> int | None:
    """The newest generation that has vectors in the table: one just begun, or forgotten, has a column without."""
    there = {name for name, _ in cursor.execute(COLUMNS, (adoption.namespace, adoption.table)).fetchall()}
    for number in reversed(adoption.newer):
        held = f"SELECT 1 FROM {table_of(adoption)} WHERE {column(number)} IS NOT NULL LIMIT 1"
        if column(number) in there and cursor.execute(held, ()).fetchone():
            return number
    return None


def undo_statements(adoption: Adoption, numbers: Sequence[int], leave: int | None = None) -> list[str]:
    """What takes everything away again; `leave` is a generation whose vector column stays, with its index."""
    columns = [drop_columns(adoption, numbers, leave)] if numbers else []
    return [*columns, f"DROP SCHEMA IF EXISTS {quoted(adoption.side)} CASCADE"]


def missing(connection: Connection, changes: Sequence[Change]) -> list[str]:
    """The statements of those changes that were not made yet."""
    return [each.statement for each in changes if not connection.execute(each.there, each.values).fetchone()]


def change(
    db: PostgresConnection,
    statements: Sequence[str],
    grant: Adoption | None = None,
    first: Callable[[Connection], object] = lambda _: None,
    then: Callable[[Connection], object] = lambda _: None,
) -> None:
    """Make changes at one moment, or none of them.

    Args:
        db: says where.
        statements: with % doubled.
        grant: whose side schema an administrator has to open to the role, if the role may not make it.
        first: what belongs to that moment and comes before the statements.
        then: what comes after them.

    Raises:
        GalleryError: if the role may not do that (the message holds what an administrator has to run), or the table is
            in use without a pause.
    """
    with contextlib.closing(db.connect(autocommit=True)) as connection:
        errors, ends = db.psycopg.errors, time.monotonic() + PATIENCE
        while True:
            try:
                with connection.transaction():
                    connection.execute(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
                    first(connection)
                    for statement in statements:
                        connection.execute(statement, ())
                    then(connection)
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                if time.monotonic() > ends:
                    raise GalleryError(
                        f"{db.url}: the table was locked by others for {PATIENCE:.0f} s; nothing was changed, try "
                        f"again when long transactions have ended ({plain(' '.join(statements))[:200]})"
                    ) from None
                time.sleep(random.uniform(0.05, 0.25))  # noqa: S311
            except errors.InsufficientPrivilege:
                raise _not_allowed(db.url, connection, statements, grant) from None
            except db.psycopg.Error as error:
                raise refused(db.url, error) from None
            else:
                return


def build_index(db: PostgresConnection, table: Table, number: int, dim: int) -> None:
    """Build an index beside readers and writers, where there is to be one; an interrupted build is finished."""
    adoption, statement = table.adoption, index_statement(table, number, dim)
    method, top = index_method(table, number, dim), index_name(adoption, number)
    if statement is None or method is None:
        return
    with contextlib.closing(db.connect(autocommit=True)) as connection:
        try:
            there = connection.execute("SELECT to_regclass(%s)::oid::bigint", (plain(table_of(adoption)),)).fetchone()
            oid = int(there[0] or 0) if there else 0
            parts = partitions(connection, oid)
            if parts and not parts[0].leaf:
                build_indexes(connection, parts, top, column(number), method, lambda each: change(db, [each]))
                return
            name, valid = index_of(connection, oid, column(number), adoption.namespace, top)
            if valid:
                return
            if valid is not None:
                connection.execute(f"DROP INDEX CONCURRENTLY {quoted(adoption.namespace, name)}", ())
            statement = index_statement(table, number, dim, name) or statement
            connection.execute(statement, ())
        except db.psycopg.errors.InsufficientPrivilege:
            raise _not_allowed(db.url, connection, [statement], None) from None
        except db.psycopg.Error as error:
            raise refused(db.url, error) from None


def refused(url: str, error: Exception) -> GalleryError:
    """What the server says, in one line."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None) or type(error).__name__
    return GalleryError(f"{url}: {' '.join(str(primary).split())[:200]}")


def later_changes(table: Table) -> list[str]:
    """What an upgrade will run, with the number of values of the new model as `DIM`."""
    example = table.adoption.model_copy(update={"dims": {FIRST_NEW: 1}})
    shown = dataclasses.replace(table, adoption=example)
    statements = [each.statement for each in column_change(shown, FIRST_NEW, 1)]
    index = index_statement(shown, FIRST_NEW, 1)
    return [plain(each).replace("(1)", "(DIM)") for each in [*statements, *([index] if index else [])]]


def _not_allowed(url: str, connection: Connection, statements: Sequence[str], grant: Adoption | None) -> GalleryError:
    role = connection.execute("SELECT current_user").fetchone()
    name = quoted(str(role[0] if role else ""))
    grants = []
    if grant is not None:
        side = quoted(grant.side)
        grants = [f"GRANT USAGE ON SCHEMA {side} TO {name}", f"GRANT ALL ON ALL TABLES IN SCHEMA {side} TO {name}"]
    script = " ".join(f"{plain(each)};" for each in [*statements, *grants])
    return GalleryError(
        f"{url}: the role {plain(name)} may not change the schema; an administrator has to run: {script} "
        "After that the same command goes on"
    )
