"""Finding a table by the name in a URL, and whether a gallery has adopted it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, cast

from nobackfill.errors import GalleryError
from nobackfill.gallery.formats import parse_document
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.adopted_layout import ADOPTION, Adoption, Table, columns, side_schema
from nobackfill.gallery.stores.adopted_sql import quoted
from nobackfill.gallery.stores.postgres_connection import PostgresConnection, Row

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

QUOTED = re.compile(r'"((?:[^"]|"")+)"\."((?:[^"]|"")+)"')
COLUMNS = (
    "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 "
    "AND NOT a.attisdropped ORDER BY a.attnum"
)
OURS = re.compile(r"nobackfill_[0-9]+(_of|_by)?")


def connection_of(address: Address) -> PostgresConnection:
    """To the server, whatever the name of the table is like."""
    return PostgresConnection(dataclasses.replace(address, name="nobackfill"), "vector")


def named(name: str) -> Iterator[tuple[str | None, str]]:
    """What a name may mean, most likely first: a table of the search path, `schema.table`, `"schema"."table"`."""
    yield None, name
    if match := QUOTED.fullmatch(name):
        first, second = (part.replace('""', '"') for part in match.groups())
        yield first, second
    for place, sign in enumerate(name):
        if sign == "." and name[:place] and name[place + 1 :]:
            yield name[:place], name[place + 1 :]


def resolved(connection: Connection, namespace: str | None, table: str) -> tuple[str, str] | None:
    """Schema and name of a table that exists."""
    named_so = "quote_ident(%s)" if namespace is None else "quote_ident(%s) || '.' || quote_ident(%s)"
    found = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE c.oid = to_regclass({named_so})",
        (table,) if namespace is None else (namespace, table),
    ).fetchone()
    return (str(found[0]), str(found[1])) if found else None


def adopted(connection: Connection, namespace: str, table: str) -> bool:
    """Whether a gallery has adopted the table."""
    side = side_schema(namespace, table)
    return (
        has_documents(connection, side)
        and has_usage(connection, side)
        and document(connection, side, ADOPTION) is not None
    )


def has_documents(connection: Connection | Cursor, side: str) -> bool:
    """Whether the schema beside a table has the gallery's documents."""
    there = "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'documents'"
    return connection.execute(there, (side,)).fetchone() is not None


def document(connection: Connection | Cursor, side: str, name: str) -> bytes | None:
    """A document, if there is one of this name."""
    found = connection.execute(f"SELECT data FROM {quoted(side)}.documents WHERE name = %s", (name,)).fetchone()
    return bytes(found[0]) if found else None


def has_usage(connection: Connection, side: str) -> bool:
    """Whether the role may look into a schema that exists."""
    found = connection.execute("SELECT has_schema_privilege(%s, 'USAGE')", (side,)).fetchone()
    return bool(found and found[0])


def load_table(cursor: Cursor, side: str, url: str) -> Table:
    """The adopted table as it is now; raises `GalleryError` if it was given up."""
    found = cursor.execute(*table_statement(side)).fetchone() if has_documents(cursor, side) else None
    if not found:
        raise _given_up(url)
    return parsed_table(found, url)


def load_adoption(cursor: Cursor, side: str, url: str) -> Adoption:
    """What was agreed, whatever has become of the table since; raises `GalleryError` if it was given up."""
    data = document(cursor, side, ADOPTION) if has_documents(cursor, side) else None
    if data is None:
        raise _given_up(url)
    return _parsed(data, url)


def table_statement(side: str) -> tuple[str, Sequence[object]]:
    """Asks for the adoption, the columns, and a hash of both: one row; none if it was given up."""
    statement = (
        "SELECT data, columns, md5(encode(data, 'hex') || columns::text) AS stamp FROM "
        "(SELECT d.data, array(SELECT ARRAY[a.attname::text, format_type(a.atttypid, NULL)] FROM pg_attribute a "
        "JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = j.agreed ->> 'namespace' AND c.relname = j.agreed ->> 'table' AND a.attnum > 0 "
        f"AND NOT a.attisdropped ORDER BY a.attnum) AS columns FROM {quoted(side)}.documents d "
        "CROSS JOIN LATERAL (SELECT convert_from(d.data, 'UTF8')::jsonb AS agreed) j WHERE d.name = %s) found"
    )
    return statement, (ADOPTION,)


def parsed_table(found: Row, url: str) -> Table:
    """The table that an answer to `table_statement` speaks of; raises `GalleryError` if columns of it are gone."""
    adoption = _parsed(bytes(found[0]), url)
    types = {str(name): str(kind) for name, kind in found[1]}
    ours = [name for number in adoption.newer for name in columns(number)] if adoption.layout == "new-column" else []
    for name in (adoption.id_column, adoption.vector_column, *ours):
        if name not in types:
            raise GalleryError(
                f"{url}: {adoption.namespace}.{adoption.table} has no column {name!r} any more: it was renamed or "
                "dropped, or another table has this one's name; undo that, or `gallery abandon --leave-new`"
            )
    kind = cast('Literal["vector", "halfvec"]', types[adoption.vector_column].rpartition(".")[2])
    return Table(adoption, types[adoption.id_column], kind, payload_types(adoption, types))


def payload_types(adoption: Adoption, types: dict[str, str]) -> dict[str, str]:
    """The columns of an item's payload that are there now, and their types."""
    chosen = adoption.payload_columns
    taken = (adoption.id_column, adoption.vector_column)
    if chosen is None:
        return {name: kind for name, kind in types.items() if name not in taken and not OURS.fullmatch(name)}
    return {name: types[name] for name in chosen if name in types}


def save(connection: Connection | Cursor, side: str, name: str, data: bytes) -> None:
    """Replace a document."""
    connection.execute(
        f"INSERT INTO {quoted(side)}.documents VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET data = excluded.data",
        (name, data),
    )


def _parsed(data: bytes, url: str) -> Adoption:
    return parse_document(Adoption, data, f"{url}: the document {ADOPTION!r}")


def _given_up(url: str) -> GalleryError:
    return GalleryError(f"{url}: no gallery there any more: it was abandoned, or the table is gone")
