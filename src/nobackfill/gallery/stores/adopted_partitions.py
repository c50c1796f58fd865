"""Vector indexes of a partitioned table: PostgreSQL builds none concurrently there, but on its partitions it does.

So an index is made on the table alone, which is done at once; then one on each partition, beside its readers and
writers; each is attached to the one above, and with the last the whole is valid. Partitions that are made later get
theirs with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nobackfill.gallery.stores.adopted_sql import plain, quoted

if TYPE_CHECKING:
    from psycopg import Connection

TREE = (
    "SELECT c.oid::bigint, p.parentrelid::oid::bigint, p.isleaf, n.nspname, c.relname, c.relkind::text "
    "FROM pg_partition_tree(%s::oid) p JOIN pg_class c ON c.oid = p.relid "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "ORDER BY p.level, c.oid"
)
ATTACHED = "SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(%s) AND inhparent = to_regclass(%s)"
TAKEN = "SELECT 1 WHERE to_regclass(%s) IS NOT NULL"
FOUND = (
    "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
    "WHERE i.indrelid = %s::oid AND a.attname = %s AND c.relname LIKE 'nobackfill%%' ORDER BY i.indisvalid DESC"
)


@dataclass(frozen=True)
class Part:
    """A table of the tree: `oid` and `above` of pg_class, and whether it holds rows."""

    oid: int
    above: int | None
    leaf: bool
    namespace: str
    name: str
    kind: str

    def index(self, top: str) -> str:
        """Name of its index: `top` is that of the whole table's, which this one begins like."""
        return f"{top.encode()[:40].decode(errors='ignore')}_{self.oid}"


def partitions(connection: Connection, oid: int) -> list[Part]:
    """The table and its partitions, each after the one it belongs to; nothing of a table that has none."""
    return [Part(*row) for row in connection.execute(TREE, (oid,)).fetchall()]


def index_of(connection: Connection, oid: int, column: str, namespace: str, wanted: str) -> tuple[str, bool | None]:
    """Name of the gallery's index over a column of a table, and whether it is valid; None: it is not there yet.

    The wanted name may be taken by an index over another column: an earlier gallery left it, or it was cut alike.
    """
    found = connection.execute(FOUND, (oid, column)).fetchone()
    if found:
        return str(found[0]), bool(found[1])
    name, number = wanted, 0
    while connection.execute(TAKEN, (plain(quoted(namespace, name)),)).fetchone():
        number += 1
        name = f"{wanted.encode()[:50].decode(errors='ignore')}_{number}"
    return name, None


def build_indexes(
    connection: Connection,
    parts: list[Part],
    top: str,
    column: str,
    method: str,
    briefly: Callable[[str], None],
) -> None:
    """Build the index of a partitioned table, or go on with a build that was interrupted.

    Args:
        connection: in autocommit mode.
        parts: of the table, as `partitions` gives them.
        top: name of the index, if it is free.
        column: that it is over.
        method: `USING …` of CREATE INDEX, with % doubled.
        briefly: runs a statement that needs a lock for a moment, and tries again if it does not get it.
    """
    names: dict[int, str] = {}
    for part in parts:
        index, valid = index_of(connection, part.oid, column, part.namespace, top if not names else part.index(top))
        names[part.oid] = name = quoted(part.namespace, index)
        table = quoted(part.namespace, part.name)
        if not part.leaf:
            if valid is None:
                briefly(f"CREATE INDEX {quoted(index)} ON ONLY {table} {method}")
        elif not valid:
            if valid is not None:  # an interrupted build left it
                connection.execute(f"DROP INDEX CONCURRENTLY {name}", ())
            connection.execute(f"CREATE INDEX CONCURRENTLY {quoted(index)} ON {table} {method}", ())
    for part in parts[1:]:
        above = names[part.above or 0]
        both = plain(names[part.oid]), plain(above)
        if not connection.execute(ATTACHED, both).fetchone():
            briefly(f"ALTER INDEX {above} ATTACH PARTITION {names[part.oid]}")
