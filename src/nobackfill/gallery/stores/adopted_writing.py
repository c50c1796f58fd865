"""What is written to an adopted table: vectors of later generations. All take a cursor in a transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.gallery.stores.adopted_layout import Table, column, columns, stamp_column, writer_column
from nobackfill.gallery.stores.adopted_reading import UTC
from nobackfill.gallery.stores.adopted_sql import generation, key, own, quoted, source, stamp, table_of, version
from nobackfill.gallery.stores.base import Floats, ItemBatch
from nobackfill.gallery.stores.postgres_connection import as_vector

if TYPE_CHECKING:
    from psycopg import Cursor

# Shorter than the server waits before it looks for a deadlock, so that it is never the application that is ended.
LOCK_MILLISECONDS = 500
WRITER = "pg_current_xact_id()::xid"
# A batch is joined to the table by its key; nothing is known of the size of a temporary table, so it is said.
SETTINGS = f"{UTC} SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'; SET LOCAL enable_hashjoin = off"


def replace(cursor: Cursor, table: Table, items: ItemBatch, *, keep_old: bool) -> set[str]:
    """See `Store.replace`; returns the ids that were written."""
    cursor.execute(f"{SETTINGS}; SET LOCAL enable_mergejoin = off")
    _load(cursor, table, items)
    rows, ours = table_of(table.adoption), _ours(table)
    due = f"{generation(table)} < %s AND (n.version IS NULL OR n.version = {version(table)})"
    if table.adoption.layout == "same-column":
        # Rows are locked first. What follows sees them as they are then, and nobody changes them meanwhile.
        cursor.execute(
            f"SELECT 1 FROM {rows} t JOIN newer n ON {ours} ORDER BY {key(table)} FOR NO KEY UPDATE OF t", ()
        )
        cursor.execute(
            f"DELETE FROM newer n WHERE NOT EXISTS (SELECT 1 FROM {source(table)} WHERE {ours} AND {due})",
            (items.generation,),
        )
        _keep(cursor, table, wanted=keep_old)
        return _take_place(cursor, table, items.generation)
    changes = [f"{column(items.generation)} = n.embedding"]
    dropped = [] if keep_old else [number for number in table.adoption.newer if number < items.generation]
    changes += [f"{name} = NULL" for number in dropped for name in columns(number)]
    made_for = stamp(table, items.generation, without_newer=not keep_old)
    changes += [f"{stamp_column(items.generation)} = {made_for}", f"{writer_column(items.generation)} = {WRITER}"]
    # The condition is only about the row itself: PostgreSQL asks it again of a row that another client has changed.
    cursor.execute(
        f"UPDATE {rows} t SET {', '.join(changes)} FROM newer n WHERE {ours} AND {due} RETURNING n.name",
        (items.generation,),
    )
    return {name for (name,) in cursor}


def without_older(cursor: Cursor, table: Table, generation_asked: int) -> int:
    """How many items of newer generations have no vector of this generation or an older one."""
    adoption = table.adoption
    if adoption.layout == "new-column":
        older = f"({generation(_up_to(table, generation_asked))}) IS NULL"
        values: tuple[int, ...] = (generation_asked,)
    else:
        older = (
            f"NOT EXISTS (SELECT 1 FROM {quoted(adoption.side, 'kept')} k "
            f"WHERE k.id = {key(table)} AND k.generation <= %s)"
        )
        values = (generation_asked, generation_asked)
    cursor.execute(
        f"SELECT count(*) FROM {source(table)} WHERE {generation(table)} > %s AND {older}",
        values,
    )
    found = cursor.fetchone()
    return int(found[0]) if found else 0


def empty_columns(cursor: Cursor, table: Table, generation_asked: int) -> None:
    """New column: take away newer vectors of items that have an older one."""
    newer = [number for number in table.adoption.newer if number > generation_asked]
    changes = ", ".join(f"{name} = NULL" for number in newer for name in columns(number))
    if changes:
        cursor.execute(
            f"UPDATE {table_of(table.adoption)} t SET {changes} WHERE {generation(table)} > %s "
            f"AND ({generation(_up_to(table, generation_asked))}) IS NOT NULL",
            (generation_asked,),
        )


def restore(cursor: Cursor, table: Table, generation_asked: int, *, leave_new: bool) -> int:
    """Same column: see `Store.restore`."""
    without = without_older(cursor, table, generation_asked)
    if not without or leave_new:
        put_back(cursor, table, generation_asked)
    return without


def put_all_back(cursor: Cursor, table: Table) -> int:
    """Same column: `restore` the application's own vectors; nobody replaces one until the transaction ends."""
    generations, kept = (quoted(table.adoption.side, name) for name in ("generations", "kept"))
    cursor.execute(UTC)
    cursor.execute(f"LOCK TABLE {generations}, {kept} IN ACCESS EXCLUSIVE MODE", ())
    return restore(cursor, table, 1, leave_new=False)


def put_back(cursor: Cursor, table: Table, generation_asked: int) -> None:
    """Same column: kept vectors of this generation or an older one take their place again."""
    side, rows = table.adoption.side, table_of(table.adoption)
    kept, generations = quoted(side, "kept"), quoted(side, "generations")
    cursor.execute(  # nobody changes a row between what is looked up and what is written
        f"SELECT count(*) FROM (SELECT 1 FROM {rows} t WHERE {key(table)} IN (SELECT g.id FROM {generations} g) "
        f"ORDER BY {key(table)} FOR NO KEY UPDATE OF t) locked",
        (),
    )
    cursor.execute(
        f"CREATE TEMP TABLE back ON COMMIT DROP AS SELECT DISTINCT ON (k.id) k.id, k.generation, k.embedding "
        f"FROM {source(table)} JOIN {kept} k ON k.id = {key(table)} WHERE k.generation <= {int(generation_asked)} "
        f"AND {generation(table)} > {int(generation_asked)} ORDER BY k.id, k.generation DESC",
        (),
    )
    sent = f"sha256({table.kind}_send({own(table)}))"
    name = quoted(table.adoption.vector_column)
    cursor.execute(
        f"WITH moved AS (UPDATE {rows} t SET {name} = b.embedding FROM back b WHERE {key(table)} = b.id "
        f"RETURNING b.id, b.generation, {sent} AS stamp) UPDATE {generations} g "
        f"SET generation = m.generation, stamp = m.stamp, writer = {WRITER} FROM moved m WHERE g.id = m.id",
        (),
    )
    cursor.execute(f"DELETE FROM {generations} WHERE generation = 1", ())
    cursor.execute(
        f"DELETE FROM {kept} k USING back b WHERE k.id = b.id AND k.generation >= b.generation",
        (),
    )


def forget_kept(cursor: Cursor, table: Table) -> None:
    """Older vectors go, except the application's own; so does what is known of rows that are gone."""
    adoption = table.adoption
    if adoption.layout == "same-column":
        cursor.execute(f"TRUNCATE {quoted(adoption.side, 'kept')}", ())
        cursor.execute(
            f"DELETE FROM {quoted(adoption.side, 'generations')} g WHERE NOT EXISTS "
            f"(SELECT 1 FROM {table_of(adoption)} t WHERE {key(table)} = g.id)",
            (),
        )
        return
    for newest in adoption.newer[1:]:
        between = [number for number in adoption.newer if number < newest]
        emptied = ", ".join(f"{name} = NULL" for number in between for name in columns(number))
        some = " OR ".join(f"{column(number)} IS NOT NULL" for number in between)
        cursor.execute(
            f"UPDATE {table_of(adoption)} t SET {emptied}, {writer_column(newest)} = {WRITER}, "
            f"{stamp_column(newest)} = {stamp(table, newest, without_newer=True)} "
            f"WHERE {generation(table)} = %s AND ({some})",
            (newest,),
        )


def _up_to(table: Table, number: int) -> Table:
    """The table as if later generations were not there."""
    dims = {each: dim for each, dim in table.adoption.dims.items() if each <= number}
    return dataclasses.replace(table, adoption=table.adoption.model_copy(update={"dims": dims}))


def _ours(table: Table) -> str:
    """The row that a vector is for."""
    return f"{key(table)} = n.name::{table.id_type}"


def _load(cursor: Cursor, table: Table, items: ItemBatch) -> None:
    cursor.execute(f"CREATE TEMP TABLE newer (name text, embedding {table.kind}, version bigint) ON COMMIT DROP")
    vectors: Floats = items.vectors
    if table.adoption.layout == "same-column":
        vectors = items.vectors[:, : table.adoption.dim]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)
    versions: Sequence[int | None] = items.versions or [None] * len(items.ids)
    with cursor.copy("COPY newer FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["text", table.kind, "int8"])
        # In one order by all, so that two writers lock rows in one order.
        for name, place in sorted(zip(items.ids, range(len(items.ids)), strict=True)):
            copy.write_row((name, as_vector(table.kind, vectors[place]), versions[place]))


def _keep(cursor: Cursor, table: Table, *, wanted: bool) -> None:
    """Same column: what was kept of a content that has changed since goes; what is about to be replaced is kept."""
    kept, ours = quoted(table.adoption.side, "kept"), _ours(table)
    cursor.execute(
        f"DELETE FROM {kept} k USING newer n, {source(table)} WHERE k.id = {key(table)} AND {ours} "
        f"AND k.generation >= {generation(table)}",
        (),
    )
    if wanted:
        cursor.execute(
            f"INSERT INTO {kept} SELECT {key(table)}, {generation(table)}, {own(table)} "
            f"FROM {source(table)} JOIN newer n ON {ours}",
            (),
        )


def _take_place(cursor: Cursor, table: Table, number: int) -> set[str]:
    """Same column: write the vectors, and note which rows hold one."""
    name = quoted(table.adoption.vector_column)
    cursor.execute(
        f"WITH moved AS (UPDATE {table_of(table.adoption)} t SET {name} = n.embedding FROM newer n "
        f"WHERE {_ours(table)} RETURNING {key(table)} AS id, {stamp(table, 2)} AS stamp) "
        f"INSERT INTO {quoted(table.adoption.side, 'generations')} AS g SELECT id, {int(number)}, stamp, {WRITER} "
        "FROM moved ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, stamp = excluded.stamp, "
        "writer = excluded.writer RETURNING g.id::text",
        (),
    )
    return {found for (found,) in cursor}
