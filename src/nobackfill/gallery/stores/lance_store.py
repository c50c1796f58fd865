"""A gallery in LanceDB: one table with a column of vectors a generation, `g1`, `g2`, …, null where an item has none.

An item's row holds id, seq, generation, version, payload, the vector of its generation and those that were kept. Each
write is one commit of the table, made under a file lock; each read sees one version of it. Searches are exact: LanceDB
compares the query with every row of the generation. Payload keys may be any text, which LanceDB's SQL cannot express:
a search with a filter reads the payloads and vectors of the generation and compares here, which takes longer.

    items.lance/      the table
    beside.sqlite     manifest and journal; how often searches returned an item, if they count
    locks/…           files that are locked
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter
from nobackfill.gallery.formats import parse_payload
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import CREATING, Floats, ItemBatch, Nearest, Payload, Store
from nobackfill.gallery.stores.folder_lock import folder_lock
from nobackfill.gallery.stores.lance_rows import moved_back, new_rows, replaced, to_replace, with_payloads
from nobackfill.gallery.stores.lance_search import ids_in_order, nearest, nearest_matching
from nobackfill.gallery.stores.lance_table import (
    GRACE,
    LanceTable,
    generations,
    item_batches,
    pages,
    put,
    quoted,
    rows_of,
)
from nobackfill.gallery.stores.side_file import SideFile, write_lock

if TYPE_CHECKING:
    from lancedb.table import Table

Value = TypeVar("Value")
PAGE = 8192
SHIFT = 24  # a commit adds fewer than 2**24 items, which are numbered in the order they came
FLOOR = "removed-version"  # document: the highest version of a removed item; one that is added again goes on from it


class LanceStore(Store):
    """See the module."""

    def __init__(self, address: Address) -> None:
        self.folder: Path = Path(address.location)
        self.url = address.url
        self._table = LanceTable(address)
        self._beside = SideFile(self.folder / "beside.sqlite", self.url)

    def read(self, name: str) -> bytes | None:
        return self._beside.read(name)

    def write(self, name: str, data: bytes | None) -> None:
        self._beside.write(name, data)

    def create(self) -> None:
        if self._beside.is_blank():
            self._beside.remove()
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise GalleryError(f"{self.url}: exists and is not empty; choose another folder or remove it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write(CREATING, b"{}")  # first: what is half made is begun again, too
        try:
            (self.folder / "locks").mkdir()
        except FileExistsError:
            raise GalleryError(f"{self.url}: another process is creating a gallery there") from None
        self._table.create()

    def drop(self) -> None:
        self._require_gallery()
        for name in ("items.lance", "locks"):
            if not (self.folder / name).is_symlink():
                shutil.rmtree(self.folder / name, ignore_errors=True)
        self._beside.remove()
        with contextlib.suppress(OSError):  # there are files of others
            self.folder.rmdir()

    def add_generation(self, number: int, dim: int) -> None:
        import pyarrow as pa

        def add(table: Table) -> None:
            there = generations(table).get(number)
            if there not in {None, dim}:  # of a generation that was rolled back
                table.drop_columns([f"g{number}"])
            if there != dim:
                table.add_columns(pa.schema([pa.field(f"g{number}", pa.list_(pa.float32(), dim))]))

        self._write(add)

    def insert(self, items: ItemBatch) -> None:
        def add(table: Table) -> None:
            there = rows_of(table, items.ids, ["id"]).column("id").to_pylist()
            if there or len(set(items.ids)) < len(items.ids):
                name = there[0] if there else next(name for name in items.ids if items.ids.count(name) > 1)
                raise GalleryError(f"{self.url}: item {name!r} already exists; ids are unique in a gallery")
            table.add(new_rows(items, {}, table.version << SHIFT, self._floor()))

        self._write(add)

    def upsert(self, items: ItemBatch) -> None:
        def merge(table: Table) -> None:
            former = rows_of(table, items.ids, ["seq", "version"]).to_pylist()
            known = {row["id"]: (row["seq"], row["version"]) for row in former}
            put(table, new_rows(items, known, table.version << SHIFT, self._floor()))

        self._write(merge)

    def delete(self, ids: Sequence[str]) -> int:
        def remove(table: Table) -> list[str]:
            rows = rows_of(table, ids, ["version"])
            names: list[str] = rows.column("id").to_pylist()
            if names:
                highest = max(self._floor(), *rows.column("version").to_pylist())
                self.write(FLOOR, str(highest).encode())  # before the items go: too high does no harm
                table.delete(f"id IN ({', '.join(map(quoted, names))})")
            return names

        removed = self._write(remove)
        self._beside.forget(removed)
        return len(removed)

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        def change(table: Table) -> int:
            rows = rows_of(table, list(payloads), table.schema.names)
            if rows.num_rows:
                put(table, with_payloads(rows, payloads))
            return int(rows.num_rows)

        return self._write(change)

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        rows = self._table.read(lambda table: rows_of(table, ids, ["version"]))
        return dict(zip(rows.column("id").to_pylist(), rows.column("version").to_pylist(), strict=True))

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        def exchange(table: Table) -> list[str]:
            rows = to_replace(rows_of(table, items.ids, table.schema.names), items)
            if rows.num_rows:
                put(table, replaced(rows, items, keep_old=keep_old))
            taken = set(rows.column("id").to_pylist())
            return [name for name in items.ids if name not in taken]

        return self._write(exchange)

    def search(self, queries: Mapping[int, Floats], k: int, where: Filter | None = None) -> dict[int, Nearest]:
        def look(table: Table) -> dict[int, Nearest]:
            if where is None:
                return {number: nearest(table, number, rows, k) for number, rows in queries.items()}
            return {number: nearest_matching(table, number, rows, k, where) for number, rows in queries.items()}

        return self._table.read(look)

    def counts(self, where: Filter | None = None) -> dict[int, int]:
        def count(table: Table) -> dict[int, int]:
            if where is not None:
                return {number: len(ids_in_order(table, number, where)) for number in generations(table)}
            return {number: int(table.count_rows(f"generation = {number}")) for number in generations(table)}

        return {number: found for number, found in sorted(self._table.read(count).items()) if found}

    def ids(self, generation: int, size: int = 8192, where: Filter | None = None) -> Iterator[list[str]]:
        """Holds all ids of the generation while it goes on."""
        names = self._table.read(lambda table: ids_in_order(table, generation, where))
        for start in range(0, len(names), size):
            yield names[start : start + size]

    def sample(self, count: int, seed: int) -> list[str]:
        def draw(table: Table) -> list[str]:
            total = table.count_rows()
            if not total:
                return []
            offsets = np.random.default_rng(seed).choice(total, min(total, count), replace=False)
            rows = table.take_offsets(sorted(offsets.tolist())).select(["id", "seq"]).to_arrow()
            names: list[str] = rows.sort_by("seq").column("id").to_pylist()
            return names

        return self._table.read(draw)

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        return self._table.read(lambda table: list(item_batches(rows_of(table, ids, table.schema.names))))

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        rows = self._table.read(lambda table: rows_of(table, ids, ["payload"]))
        texts = zip(rows.column("id").to_pylist(), rows.column("payload").to_pylist(), strict=True)
        return {name: parse_payload(text) for name, text in texts}

    def scan(self, size: int) -> Iterator[ItemBatch]:
        with self._table.translated():
            table = self._table.read(lambda table: table)
            for number in sorted(generations(table)):
                for rows in pages(table, ["id", "seq", "generation", f"g{number}"], f"generation = {number}", size):
                    yield from item_batches(rows, whole=False)

    def count_hits(self, hits: Mapping[str, int]) -> None:
        self._table.read(generations)  # says so if there is no gallery
        self._beside.count(hits)

    def hits(self) -> Iterator[tuple[str, int]]:
        return self._beside.hits()

    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        """Killed amid a large one, it may have put back some items only; the same call goes on."""

        def back(table: Table) -> int:
            older = sorted(number for number in generations(table) if number <= generation)
            newer = [number for number in generations(table) if number > generation]
            none = " AND ".join(f"g{number} IS NULL" for number in older)
            missing = int(table.count_rows(f"generation > {generation} AND {none}"))
            for number in reversed(older) if not missing or leave_new else ():  # the newest kept one is put back
                where = f"generation > {generation} AND g{number} IS NOT NULL"
                while True:
                    rows = next(pages(table, table.schema.names, where, PAGE), None)
                    if rows is None or not rows.num_rows:
                        break
                    put(table, moved_back(rows, number, newer))
            return missing

        return self._write(back)

    def compact(self, *, forget_kept: bool) -> None:
        def tidy(table: Table) -> None:
            for number in generations(table) if forget_kept else ():
                where = f"generation <> {number} AND g{number} IS NOT NULL"
                while True:
                    rows = next(pages(table, table.schema.names, where, PAGE), None)
                    if rows is None or not rows.num_rows:
                        break
                    put(table, rows.drop_columns([f"g{number}"]))
            table.optimize(cleanup_older_than=GRACE)

        self._write(tidy)

    def lock(self, name: str = "gallery") -> AbstractContextManager[Callable[[], None]]:
        """A lock on a file: the system lets go of it when its owner is gone."""
        self._require_gallery()
        return folder_lock(self.folder / "locks" / quote(name, safe=""), self.url)

    def close(self) -> None:
        """Nothing is held between calls."""

    def _require_gallery(self) -> None:
        """Raise `GalleryError` where no gallery is: an application's LanceDB table may be called `items` too."""
        if not self._beside.path.is_file():
            raise GalleryError(f"{self.url}: no gallery there; nothing was changed")

    def _write(self, action: Callable[[Table], Value]) -> Value:
        with write_lock(self.folder / "locks" / "write", self.url):
            return self._table.write(action)

    def _floor(self) -> int:
        return int(self.read(FLOOR) or 0)
