"""The table of a gallery in LanceDB: how rows and items become each other, and how it is read and written."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nobackfill.errors import GalleryError, one_line
from nobackfill.gallery.formats import parse_payload
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import ItemBatch
from nobackfill.gallery.stores.lance_rows import vectors_of

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import DBConnection
    from lancedb.table import Table

Value = TypeVar("Value")
PLAIN = ("id", "seq", "generation", "version", "payload")
TIDY = 64  # writes after which small files are merged and the id index is brought up to date
GRACE = timedelta(minutes=10)  # for readers of an older state
LOOKUP = 512  # ids in one condition
RETRIES = 20


class LanceTable:
    """One LanceDB table, opened anew for each call: every call sees one state, any thread may make it.

    Raises:
        GalleryError: if LanceDB is not installed; every method, if the table is missing or damaged.
    """

    def __init__(self, address: Address) -> None:
        try:
            importlib.import_module("lancedb")
        except ImportError as error:
            raise GalleryError("lance: needs its extra: pip install 'nobackfill[lance]'") from error
        self.url: str = address.url
        self.folder: Path = Path(address.location)

    def read(self, action: Callable[[Table], Value]) -> Value:
        """Read from one state; from the next one if its files were removed meanwhile."""
        for _ in range(RETRIES):
            try:
                with self.translated():
                    return action(self._open())
            except GalleryError as error:
                cause = error.__cause__
                if not isinstance(cause, RuntimeError | OSError) or "not found" not in str(cause).lower():
                    raise
        with self.translated():
            return action(self._open())

    def write(self, action: Callable[[Table], Value]) -> Value:
        """Change the table; the caller holds the store's lock for writes."""
        with self.translated():
            table = self._open()
            value = action(table)
            if table.version % TIDY == 0:
                table.optimize(cleanup_older_than=GRACE)
            return value

    def create(self) -> None:
        """An empty table with an index on ids."""
        import pyarrow as pa
        from lancedb.index import BTree

        kinds = (pa.string(), pa.int64(), pa.int32(), pa.int64(), pa.string())
        table = self._connect().create_table("items", schema=pa.schema(list(zip(PLAIN, kinds, strict=True))))
        table.create_index("id", config=BTree())

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """What LanceDB says, as one line; panics of its Rust code are no `Exception`."""
        try:
            yield
        except GalleryError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise GalleryError(f"{self.url}: damaged, or cannot be read: {one_line(error, 160)}") from error

    def _connect(self) -> DBConnection:
        import lancedb

        return lancedb.connect(str(self.folder))  # a path, whatever it looks like

    def _open(self) -> Table:
        if (self.folder / "items.lance").is_symlink():
            raise GalleryError(f"{self.url}: its folder 'items.lance' is a link; replace it with the folder itself")
        try:
            return self._connect().open_table("items")
        except ValueError as error:
            raise GalleryError(f"{self.url}: no gallery there; create one with `gallery create`") from error


def generations(table: Table) -> dict[int, int]:
    """Size of the vectors of each generation there is a column for."""
    return {int(field.name[1:]): int(field.type.list_size) for field in table.schema if field.name[1:].isdigit()}


def rows_of(table: Table, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """These columns of the rows of these items, with their ids; unknown ids are left out."""
    import pyarrow as pa

    wanted = ["id", *(name for name in columns if name != "id")]
    found = [
        _select(table, wanted, f"id IN ({', '.join(map(quoted, ids[start : start + LOOKUP]))})")
        for start in range(0, len(ids), LOOKUP)
    ]
    return pa.concat_tables(found) if found else _select(table, wanted, "false")


def pages(table: Table, columns: Sequence[str], where: str | None, size: int) -> Iterator[pa.Table]:
    """Rows that fulfil a condition, at most `size` at a time."""
    import pyarrow as pa

    query = table.search().select(list(columns))
    for batch in (query.where(where) if where else query).to_batches(batch_size=size):
        for start in range(0, batch.num_rows, size):
            yield pa.table(batch.slice(start, size))


def put(table: Table, rows: pa.Table) -> None:
    """Add rows, or replace those with the same ids, in one commit; columns that they lack become null."""
    import pyarrow as pa

    columns = {
        field.name: rows.column(field.name) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in table.schema
    }
    whole = pa.table(columns, schema=table.schema)
    builder = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    builder.execute(whole, on_bad_vectors="null")  # it takes an absent vector for a bad one


def item_batches(rows: pa.Table, *, whole: bool = True) -> Iterator[ItemBatch]:
    """Rows as items, a batch for each generation, in the order of insertion; not `whole`: without payload, version."""
    import pyarrow.compute as pc

    for number in sorted(pc.unique(rows.column("generation")).to_pylist()):
        some = rows.filter(pc.equal(rows.column("generation"), number)).sort_by("seq")
        payloads = [parse_payload(text) for text in some.column("payload").to_pylist()] if whole else []
        versions = some.column("version").to_pylist() if whole else []
        yield ItemBatch(some.column("id").to_pylist(), number, vectors_of(some, f"g{number}"), payloads, versions)


def _select(table: Table, columns: list[str], where: str) -> pa.Table:
    return table.search().select(columns).where(where).limit(table.count_rows() + 1).to_arrow()


def quoted(text: str) -> str:
    """A text as a literal of LanceDB's SQL, in which only the quote itself means something."""
    return "'" + text.replace("'", "''") + "'"
