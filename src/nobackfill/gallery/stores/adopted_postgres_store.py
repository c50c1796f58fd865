"""A gallery in a table of PostgreSQL that somebody else made, fills and reads; see `adopted_layout`.

Rows belong to the application: it adds, changes and removes them with its own client, and what it does counts at once.
A gallery only writes vectors of later generations, and searches what is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter
from nobackfill.gallery.stores import adopted_reading, adopted_writing
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.adopted_answers import Answers
from nobackfill.gallery.stores.adopted_ddl import (
    FOUND_COLUMNS,
    build_index,
    change,
    column_change,
    drop_columns,
    missing,
    newest_held,
    refused,
    undo_statements,
)
from nobackfill.gallery.stores.adopted_items import AdoptedItems
from nobackfill.gallery.stores.adopted_layout import ADOPTION, Adoption, Table, side_schema
from nobackfill.gallery.stores.adopted_sql import canonical, plain, quoted, table_of
from nobackfill.gallery.stores.adopted_table import load_adoption, load_table, save
from nobackfill.gallery.stores.advisory_lock import advisory_lock
from nobackfill.gallery.stores.base import Best, Floats, ItemBatch, Nearest, Payload, Scales
from nobackfill.gallery.stores.postgres_connection import HITS_PAGE, PostgresConnection, Row

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

Value = TypeVar("Value")


class AdoptedPostgresStore(AdoptedItems):
    """Of one table.

    Args:
        address: as the gallery's URL says it.
        namespace, name: of the table.
    """

    whose = "rows of an adopted table"

    def __init__(self, address: Address, namespace: str, name: str) -> None:
        self.url, self.side = address.url, side_schema(namespace, name)
        own = f"nobackfill_{self.side[-8:]}"
        self.db = PostgresConnection(dataclasses.replace(address, name=own), "vector", adopted_reading.SETTINGS)
        self._table: Table | None = None
        self._answers = Answers(self.db, self.side)

    @property
    def compatible_dim(self) -> int | None:
        """So many first values of a new vector are stored, at unit norm; None: all, as they are."""
        agreed = self.table().adoption
        return agreed.dim if agreed.layout == "same-column" else None

    def table(self) -> Table:
        """The table as it is now."""
        self._table = self.db.transaction(self._loaded)
        return self._table

    def read(self, name: str) -> bytes | None:
        ((*found,),) = self.db.answers([(self._side("SELECT data FROM {}.documents WHERE name = %s"), (name,))])
        return bytes(found[0][0]) if found else None

    def write(self, name: str, data: bytes | None) -> None:
        if data is None:
            self.rows(self._side("DELETE FROM {}.documents WHERE name = %s"), (name,))
        else:
            self.db.transaction(lambda cursor: save(cursor, self.side, name, data))

    def drop(self, *, leave_new: bool = False) -> None:
        """Takes away what the gallery made; rows and the application's columns stay.

        Args:
            leave_new: leave the vector column of the newest generation that has vectors (new column), or the new
                vectors where they are (same column); else they go, and old vectors are put back.

        Raises:
            GalleryError: if there are rows whose only vector is a new one, and not `leave_new`.
        """
        adoption = self._agreed()
        in_place = adoption.layout == "same-column"
        put_back = not leave_new and bool(adoption.newer) and (in_place or bool(self._found_columns(adoption)))

        def check(without: int) -> None:
            words = "embed them with the old model, or leave the new vectors (--leave-new)"
            if without:
                raise GalleryError(f"{self.url}: rows that have no vector but a new one: {without}; {words}")

        def put_rest_back(connection: Connection) -> None:
            if put_back and in_place:  # what was replaced since has its original only in what goes
                check(adopted_writing.put_all_back(cursor := connection.cursor(), self._loaded(cursor)))

        if put_back:
            check(self.restore(1) if in_place else self._without_older(1))
        change(self.db, self._undo_statements(leave_new=leave_new), first=put_rest_back)

    def undo_statements(self, *, leave_new: bool = False) -> list[str]:
        """What `drop` runs, as an administrator types it."""
        return [plain(each) for each in self._undo_statements(leave_new=leave_new)]

    def _undo_statements(self, *, leave_new: bool) -> list[str]:
        adoption = self._agreed()
        leave = self.db.transaction(lambda cursor: newest_held(cursor, adoption)) if leave_new else None
        return undo_statements(adoption, self._found_columns(adoption), leave)

    def _agreed(self) -> Adoption:
        """What was agreed, whatever has become of the table since."""
        return self.db.transaction(lambda cursor: load_adoption(cursor, self.side, self.url))

    def _found_columns(self, adoption: Adoption) -> list[int]:
        """Numbers of the generations that the table of this name has columns of."""
        return [int(number) for (number,) in self.rows(FOUND_COLUMNS, (plain(table_of(adoption)),))]

    def add_generation(self, number: int, dim: int) -> None:
        """Adds columns that are NULL everywhere, and an index built beside readers and writers."""
        table = self.table()
        known = table.adoption.dims
        if number > 1 and known.get(number) != dim:
            with contextlib.closing(self.db.connect(autocommit=True)) as connection:
                statements = missing(connection, column_change(table, number, dim))
            if number in known and table.adoption.layout == "new-column":  # of a generation that was rolled back
                statements = [drop_columns(table.adoption, [number]), *statements]
            dims = {**known, number: dim}
            document = table.adoption.model_copy(update={"dims": dims}).model_dump_json().encode()
            change(self.db, statements, then=lambda connection: save(connection, self.side, ADOPTION, document))
        if number > 1:
            build_index(self.db, table, number, dim)

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        return self._with_table(lambda cursor, table: adopted_reading.versions(cursor, table, ids))

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        def exchange(cursor: Cursor, table: Table) -> list[str]:
            known = set(canonical(table, items.ids))
            rows = [row for row, name in enumerate(items.ids) if name in known]
            ours = ItemBatch(
                [items.ids[row] for row in rows],
                items.generation,
                items.vectors[rows],
                [],
                [items.versions[row] for row in rows] if items.versions else [],
            )
            written = adopted_writing.replace(cursor, table, ours, keep_old=keep_old)
            return [name for name in items.ids if name not in written]

        return self._with_table(exchange)

    def search(self, queries: Mapping[int, Floats], k: int, where: Filter | None = None) -> dict[int, Nearest]:
        def look(cursor: Cursor) -> dict[int, Nearest]:
            cursor.execute(adopted_reading.ONE_STATE)
            table = self._table or self._loaded(cursor)
            if not set(queries) <= {1, *table.adoption.newer}:
                table = self._loaded(cursor)
            self._table = table
            return {
                number: adopted_reading.nearest(cursor, table, number, rows, k, where)
                for number, rows in queries.items()
            }

        try:
            return self.db.transaction(look)
        except GalleryError:
            if self._table is None or self._table == self.table():
                raise
        return self.db.transaction(look)  # a column came or went since we looked

    def best(
        self, queries: Mapping[int, Floats], k: int, where: Filter | None, scales: Callable[[], Scales]
    ) -> list[list[Best]] | None:
        return self._answers.best(queries, k, where, scales())

    def counts(self, where: Filter | None = None) -> dict[int, int]:
        return self._with_table(lambda cursor, table: adopted_reading.counts(cursor, table, where))

    def ids(self, generation: int, size: int = 8192, where: Filter | None = None) -> Iterator[list[str]]:
        last: str | None = None
        while names := self._page_of_ids(generation, size, where, last):
            last = names[-1]
            yield names

    def sample(self, count: int, seed: int) -> list[str]:
        return self._with_table(lambda cursor, table: adopted_reading.sample(cursor, table, count, seed))

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        return self._with_table(lambda cursor, table: adopted_reading.fetch(cursor, table, ids))

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        return self._with_table(lambda cursor, table: adopted_reading.payloads(cursor, table, ids))

    def scan(self, size: int) -> Iterator[ItemBatch]:
        page = partial(adopted_reading.page, size=size)
        batches, last = self._with_table(partial(page, last=None))
        while last is not None:
            yield from batches
            batches, last = self._with_table(partial(page, last=last))

    def count_hits(self, hits: Mapping[str, int]) -> None:
        ids = sorted(hits)  # in one order by all, so that two do not wait for each other
        self.rows(
            self._side(
                "INSERT INTO {}.hits AS h SELECT * FROM unnest(%s::text[], %s::bigint[]) "
                "ON CONFLICT (id) DO UPDATE SET hits = h.hits + excluded.hits"
            ),
            (ids, [hits[name] for name in ids]),
        )

    def hits(self) -> Iterator[tuple[str, int]]:
        statement = self._side(
            "SELECT id, hits FROM {}.hits WHERE hits < %s OR (hits = %s AND id > %s) ORDER BY hits DESC, id LIMIT %s"
        )
        most, name = 2**62, ""
        while rows := self.rows(statement, (most, most, name, HITS_PAGE)):
            name, most = rows[-1]
            yield from rows

    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        """New column: the columns are made anew, at once and empty; same column: kept vectors are put back."""
        table = self.table()
        if table.adoption.layout == "same-column":
            return self._with_table(
                lambda cursor, table: adopted_writing.restore(cursor, table, generation, leave_new=leave_new)
            )
        newer = [number for number in table.adoption.newer if number > generation]
        missing_ones = self._without_older(generation)
        if missing_ones and leave_new:
            self._with_table(lambda cursor, table: adopted_writing.empty_columns(cursor, table, generation))
        if not missing_ones and newer:
            dims = table.adoption.dims
            emptied = drop_columns(table.adoption, newer)
            made = [each.statement for number in newer for each in column_change(table, number, dims[number])]
            change(self.db, [emptied, *made])
            for number in newer:
                build_index(self.db, table, number, dims[number])
        return missing_ones

    def compact(self, *, forget_kept: bool) -> None:
        if forget_kept:
            self._with_table(adopted_writing.forget_kept)
        table = self.table()
        side = [f"{quoted(self.side)}.generations"] if table.adoption.layout == "same-column" else []
        with contextlib.closing(self.db.connect(autocommit=True)) as connection:
            try:
                connection.execute(f"VACUUM (ANALYZE) {', '.join([table_of(table.adoption), *side])}", ())
            except self.db.psycopg.Error as error:
                raise refused(self.url, error) from None

    def lock(self, name: str = "gallery") -> AbstractContextManager[Callable[[], None]]:
        return advisory_lock(self.db, f"{self.side}\0{name}")

    def close(self) -> None:
        self.db.close()

    def rows(self, statement: str, values: tuple[object, ...]) -> list[Row]:
        """A transaction of one statement, and what it answers."""

        def run(cursor: Cursor) -> list[Row]:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

        return self.db.transaction(run)

    def _without_older(self, generation: int) -> int:
        return self._with_table(lambda cursor, table: adopted_writing.without_older(cursor, table, generation))

    def _page_of_ids(self, generation: int, size: int, where: Filter | None, last: str | None) -> list[str]:
        return self._with_table(
            lambda cursor, table: adopted_reading.page_of_ids(cursor, table, generation, size, where, last)
        )

    def _with_table(self, action: Callable[[Cursor, Table], Value]) -> Value:
        """In one transaction: the table as it is, and what is done with it."""

        def both(cursor: Cursor) -> Value:
            cursor.execute(adopted_reading.UTC)
            return action(cursor, self._loaded(cursor))

        return self.db.transaction(both)

    def _loaded(self, cursor: Cursor) -> Table:
        return load_table(cursor, self.side, self.url)

    def _side(self, statement: str) -> str:
        """A statement about the gallery's own tables."""
        return statement.replace("{}", quoted(self.side))
