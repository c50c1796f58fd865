"""A gallery in a folder: a database of items and vectors, searched in memory by FAISS.

    gallery.sqlite    items with payload, version and vector; kept vectors; documents; hits
    indexes/…         approximate indexes, where they were asked for: a .faiss and a .npy file each
    locks/…           files that are locked

Every write is one transaction of the database, so it is there whole or not at all, and several processes may write. A
search reads one state: it takes in what changed since the last one, and compares with the vectors in memory.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import quote

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.files import remove_database
from nobackfill.gallery.filters import Filter, matches
from nobackfill.gallery.formats import parse_payload
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import Floats, ItemBatch, Nearest, Payload, Store
from nobackfill.gallery.stores.faiss_database import FILE, FolderDatabase
from nobackfill.gallery.stores.faiss_index import INDEX_FILE, Kind, build_indexes
from nobackfill.gallery.stores.faiss_rows import (
    OF_IDS,
    UPSERT,
    UPSERT_OVER,
    grouped,
    left_alone,
    restored,
    rows_of,
    text_of,
    values_of,
)
from nobackfill.gallery.stores.faiss_view import View
from nobackfill.gallery.stores.folder_lock import folder_lock
from nobackfill.gallery.stores.sampling import sampled

RETRIES = 20  # to open an index while others compact it away
# Asked with IN: for NOT IN of what may be NULL, SQLite reads the whole list for each row.
OUTDATED = (
    "SELECT changed, seq FROM (SELECT changed, seq, max(changed) OVER (PARTITION BY seq) AS last FROM changes) "
    "WHERE changed < last"
)
COUNTS = "SELECT generation, items FROM tallies WHERE items > 0 ORDER BY generation"


class FaissStore(Store):
    """See the module; `index` decides what `compact` builds for a generation of 1,000 items or more."""

    def __init__(self, address: Address, index: Kind = "flat") -> None:
        self.folder: Path = Path(address.location)
        self.url = address.url
        self.index = index
        self.db: FolderDatabase = FolderDatabase(self.folder, self.url)
        self._view, self._inode, self._guard = View(self.folder), 0, threading.RLock()

    def read(self, name: str) -> bytes | None:
        if not self.db.there() and not (self.folder / "state.json").exists():
            return None
        with self.db.reading() as connection:
            row = connection.execute("SELECT data FROM documents WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def write(self, name: str, data: bytes | None) -> None:
        with self.db.writing() as connection:
            if data is None:
                connection.execute("DELETE FROM documents WHERE name = ?", (name,))
            else:
                connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, data))

    def create(self) -> None:
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise GalleryError(f"{self.url}: exists and is not empty; choose another folder or remove it")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.db.make(self.index)
        except FileExistsError:
            raise GalleryError(f"{self.url}: another process is creating a gallery there") from None

    def drop(self) -> None:
        self.close()
        with self.db.writing():  # nobody else writes
            remove_database(self.folder / FILE)
        self.db.close()
        self._remove_indexes(keep=set())
        for path in (self.folder / "locks").glob("*.lock"):
            path.unlink()
        for name in ("indexes", "locks", "."):
            with contextlib.suppress(OSError):  # the user's own files are in it
                (self.folder / name).rmdir()

    def add_generation(self, number: int, dim: int) -> None:
        with self.db.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO generations VALUES (?, ?)", (number, dim))

    def insert(self, items: ItemBatch) -> None:
        try:
            with self.db.changing() as (connection, changed):
                connection.executemany(UPSERT, values_of(items, changed))
        except sqlite3.IntegrityError:
            raise GalleryError(f"{self.url}: an item already exists; ids are unique in a gallery") from None

    def upsert(self, items: ItemBatch) -> None:
        with self.db.changing() as (connection, changed):
            connection.executemany(UPSERT + UPSERT_OVER, values_of(items, changed))
            connection.executemany("DELETE FROM kept WHERE id = ?", [(name,) for name in items.ids])

    def delete(self, ids: Sequence[str]) -> int:
        wanted = (json.dumps(list(ids)),)
        with self.db.changing() as (connection, changed):
            connection.execute(
                f"INSERT OR REPLACE INTO gone SELECT id, version FROM items WHERE id IN ({OF_IDS})",
                wanted,
            )
            connection.execute(
                f"INSERT INTO changes SELECT ?, seq FROM items WHERE id IN ({OF_IDS})",
                (changed, *wanted),
            )
            for table in ("kept", "hits"):
                connection.execute(f"DELETE FROM {table} WHERE id IN ({OF_IDS})", wanted)
            return connection.execute(f"DELETE FROM items WHERE id IN ({OF_IDS})", wanted).rowcount

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        with self.db.changing() as (connection, changed):
            return connection.executemany(
                "UPDATE items SET payload = ?, version = version + 1, changed = ? WHERE id = ?",
                [(text_of(payload), changed, name) for name, payload in payloads.items()],
            ).rowcount

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        with self.db.reading() as connection:
            return dict(rows_of(connection, "id, version", ids))

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        with self.db.changing() as (connection, changed):
            return left_alone(connection, items, changed, keep_old=keep_old)

    def search(self, queries: Mapping[int, Floats], k: int, where: Filter | None = None) -> dict[int, Nearest]:
        with self._viewing() as (connection, view):
            found = {number: view.search(connection, number, rows, k, where) for number, rows in queries.items()}
            empty = np.empty(0, np.int64)
            wanted = np.unique(np.concatenate([empty, *(numbers.ravel() for _, numbers in found.values())]))
            names = dict(
                connection.execute(
                    f"SELECT seq, id FROM items WHERE seq IN ({OF_IDS})",
                    (json.dumps(wanted.tolist()),),
                )
            )
        return {
            number: Nearest(
                [[names[seq] for seq in row if seq >= 0] for row in numbers.tolist()],
                [line[row >= 0] for line, row in zip(scores, numbers, strict=True)],
            )
            for number, (scores, numbers) in found.items()
        }

    def counts(self, where: Filter | None = None) -> dict[int, int]:
        with self.db.reading() as connection:
            if where is None:
                return dict(connection.execute(COUNTS).fetchall())
            counts: dict[int, int] = {}
            for number, payload in connection.execute("SELECT generation, payload FROM items"):
                if matches(where, parse_payload(payload)):
                    counts[number] = counts.get(number, 0) + 1
            return dict(sorted(counts.items()))

    def ids(self, generation: int, size: int = 8192, where: Filter | None = None) -> Iterator[list[str]]:
        statement = "SELECT id, payload, seq FROM items WHERE generation = ? AND seq > ? ORDER BY seq LIMIT ?"
        last = -1
        while True:
            with self.db.reading() as connection:
                rows = connection.execute(statement, (generation, last, size)).fetchall()
            if not rows:
                return
            last = rows[-1][2]
            names = [name for name, payload, _ in rows if where is None or matches(where, parse_payload(payload))]
            if names:
                yield names

    def sample(self, count: int, seed: int) -> list[str]:
        with self.db.reading() as connection:
            low, high = connection.execute("SELECT min(seq), max(seq) FROM items").fetchone()
            if low is None:
                return []

            def look_up(numbers: list[int]) -> dict[int, str]:
                statement = f"SELECT seq, id FROM items WHERE seq IN ({OF_IDS})"
                return dict(connection.execute(statement, (json.dumps(numbers),)).fetchall())

            return sampled(low, high, count, seed, look_up)

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        with self.db.reading() as connection:
            rows = rows_of(connection, "generation, id, vector, payload, version, seq", ids)
        return grouped(sorted(rows, key=lambda row: (row[0], row[5])))

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        with self.db.reading() as connection:
            return {name: parse_payload(payload) for name, payload in rows_of(connection, "id, payload", ids)}

    def scan(self, size: int) -> Iterator[ItemBatch]:
        statement = "SELECT generation, id, vector, NULL, version, seq FROM items WHERE seq > ? ORDER BY seq LIMIT ?"
        last = -1
        while True:
            with self.db.reading() as connection:
                rows = connection.execute(statement, (last, size)).fetchall()
            if not rows:
                return
            last = rows[-1][5]
            yield from grouped(sorted(rows, key=lambda row: row[0]))

    def count_hits(self, hits: Mapping[str, int]) -> None:
        with self.db.writing() as connection:
            connection.executemany(
                "INSERT INTO hits VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET hits = hits + excluded.hits",
                list(hits.items()),
            )

    def hits(self) -> Iterator[tuple[str, int]]:
        with self.db.reading() as connection:
            yield from connection.execute("SELECT id, hits FROM hits ORDER BY hits DESC, id").fetchall()

    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        with self.db.changing() as (connection, changed):
            return restored(connection, generation, changed, leave_new=leave_new)

    def compact(self, *, forget_kept: bool) -> None:
        """Builds the approximate indexes anew, if the gallery was made with one."""
        with self.db.reading() as connection:
            kind: Kind = connection.execute("SELECT kind FROM clock").fetchone()[0]
        names = {} if kind == "flat" else self._build(kind)
        with self.db.writing() as connection:
            connection.execute("DELETE FROM indexes")
            rows = [(number, name, changed) for number, (name, changed) in names.items()]
            connection.executemany("INSERT INTO indexes VALUES (?, ?, ?)", rows)
            if forget_kept:
                connection.execute("DELETE FROM kept")
            connection.execute(f"DELETE FROM changes WHERE (changed, seq) IN ({OUTDATED})")
        self._remove_indexes(keep={name for name, _ in names.values()})
        if forget_kept:
            self.db.vacuum()
        self.close()

    def lock(self, name: str = "gallery") -> AbstractContextManager[Callable[[], None]]:
        """A lock on a file: the system lets go of it when its owner is gone."""
        if not self.db.there():
            raise GalleryError(f"{self.url}: no gallery there; create one with `gallery create`")
        self.db.refuse_links()
        (self.folder / "locks").mkdir(exist_ok=True)
        return folder_lock(self.folder / "locks" / f"{quote(name, safe='')}.lock", self.url)

    def close(self) -> None:
        with self._guard:
            self._view = View(self.folder)
            self.db.close()

    def _remove_indexes(self, keep: Set[str]) -> None:
        """All but these, also what a process left that was killed while it built them."""
        for path in (self.folder / "indexes").glob("*"):
            found = INDEX_FILE.fullmatch(path.name)
            if found and found[1] not in keep:
                path.unlink()

    def _build(self, kind: Kind) -> dict[int, tuple[str, int]]:
        """Indexes of the generations that are large enough; the name of each, and the last change it knows."""
        with self.db.reading() as connection:
            return build_indexes(connection, self.folder / "indexes", kind)

    @contextlib.contextmanager
    def _viewing(self) -> Iterator[tuple[sqlite3.Connection, View]]:
        """The vectors as they are now; one thread at a time."""
        for last in (*[False] * (RETRIES - 1), True):
            with self._guard, self.db.reading() as connection:
                inode = self.db.inode()
                if inode != self._inode:  # it was dropped and made again
                    self._view, self._inode = View(self.folder), inode
                try:
                    self._view.refresh(connection)
                except FileNotFoundError as error:  # an index was compacted away since this state was read
                    self._view = View(self.folder)
                    if last:
                        raise GalleryError(
                            f"{self.url}: damaged: its index {Path(str(error)).name} is missing"
                        ) from None
                    continue
                except BaseException:
                    self._view = View(self.folder)
                    raise
                yield connection, self._view
                return
