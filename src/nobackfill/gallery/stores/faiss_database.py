"""The database file of a folder gallery: items, vectors of record, documents; a transaction a write (SQLite, WAL)."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.base import CREATING
from nobackfill.gallery.stores.pool import Pool

FILE, FORMAT = "gallery.sqlite", 3
SECONDS = 60.0  # to wait for another writer
# Items have no index by generation or change: a replacement in random order would write two more pages for each item.
# Changes are appended to a log and items are counted by triggers: what an item costs does not grow with the gallery.
# Removals are in the log too, by `seq`: an item that is added and removed again has another one, and both count.
SCHEMA = """
CREATE TABLE items (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL,
                    version INTEGER NOT NULL, changed INTEGER NOT NULL, payload TEXT NOT NULL, vector BLOB NOT NULL);
CREATE TABLE tallies (generation INTEGER PRIMARY KEY, items INTEGER NOT NULL);
CREATE TABLE changes (changed INTEGER, seq INTEGER, PRIMARY KEY (changed, seq)) WITHOUT ROWID;
CREATE TRIGGER item_added AFTER INSERT ON items BEGIN
    INSERT INTO changes VALUES (new.changed, new.seq);
    INSERT INTO tallies VALUES (new.generation, 1) ON CONFLICT (generation) DO UPDATE SET items = items + 1;
END;
CREATE TRIGGER item_changed AFTER UPDATE OF changed ON items BEGIN
    INSERT INTO changes VALUES (new.changed, new.seq) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER item_moved AFTER UPDATE OF generation ON items WHEN new.generation <> old.generation BEGIN
    UPDATE tallies SET items = items - 1 WHERE generation = old.generation;
    INSERT INTO tallies VALUES (new.generation, 1) ON CONFLICT (generation) DO UPDATE SET items = items + 1;
END;
CREATE TRIGGER item_removed AFTER DELETE ON items BEGIN
    UPDATE tallies SET items = items - 1 WHERE generation = old.generation;
END;
CREATE TABLE kept (id TEXT NOT NULL, generation INTEGER NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (id, generation));
CREATE TABLE gone (id TEXT PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE generations (number INTEGER PRIMARY KEY, dim INTEGER NOT NULL);
CREATE TABLE documents (name TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE hits (id TEXT PRIMARY KEY, hits INTEGER NOT NULL);
CREATE TABLE indexes (generation INTEGER PRIMARY KEY, name TEXT NOT NULL, changed INTEGER NOT NULL);
CREATE TABLE clock (changed INTEGER NOT NULL, kind TEXT NOT NULL);
"""


class _Connection(sqlite3.Connection):
    """One that remembers which file it opened, and closes with its store where nobody else closes it."""

    inode: int = 0

    def __del__(self) -> None:
        self.close()


class FolderDatabase:
    """Connections to the file.

    Args:
        folder: of the gallery.
        url: for messages.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.path, self.url = folder, folder / FILE, url
        self._pool: Pool[_Connection] = Pool(self._open, lambda one: one.inode == self.inode())

    def there(self) -> bool:
        """Whether there is a gallery's file."""
        return self.path.is_file()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the gallery, whatever is written meanwhile."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All that is written is there at once at the end, or nothing; one writer at a time."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextlib.contextmanager
    def changing(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """As `writing`, for changes of items; also gives the number of this change."""
        with self.writing() as connection:
            connection.execute("UPDATE clock SET changed = changed + 1")
            yield connection, int(connection.execute("SELECT changed FROM clock").fetchone()[0])

    def make(self, kind: str) -> None:
        """A new file, whole or absent; raises `FileExistsError` if there is one."""
        temporary = self.path.with_name(f".{FILE}.{os.getpid()}")
        with self._translated(), contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            connection.executescript(f"PRAGMA user_version = {FORMAT};{SCHEMA}")
            connection.execute("INSERT INTO clock VALUES (0, ?)", (kind,))
            connection.execute("INSERT INTO documents VALUES (?, ?)", (CREATING, b"{}"))
        handle = os.open(temporary, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        try:
            os.link(temporary, self.path)  # unlike a rename, it takes nobody's place
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if self.there():
                raise FileExistsError(str(self.path)) from None
            temporary.rename(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def vacuum(self) -> None:
        """Give back the space of what was removed."""
        with self._translated(), self._pool.borrowed() as connection:
            connection.execute("VACUUM")

    def close(self) -> None:
        """Another use opens it again."""
        self._pool.close()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._pool.borrowed() as connection:
            connection.execute(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _open(self) -> _Connection:
        inode = self.inode()
        if (self.folder / "state.json").exists():
            raise GalleryError(
                f"{self.url}: its folder has format 1, of a development version before release 0.1; create the gallery "
                "again in a new folder"
            )
        if not inode:
            raise GalleryError(f"{self.url}: no gallery there; create one with `gallery create`")
        self.refuse_links()
        connection = sqlite3.connect(
            self.path, timeout=SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        try:
            connection.inode = inode
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found != FORMAT:
                raise GalleryError(
                    f"{self.url}: {FILE} has format {found}; this release reads format {FORMAT}: use the release that "
                    "wrote it, or create the gallery again"
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def refuse_links(self) -> None:
        """Raises `GalleryError` if a part of the folder leads out of it."""
        for name in (FILE, "indexes", "locks"):
            if (self.folder / name).is_symlink():
                raise GalleryError(f"{self.url}: its {name!r} is a link; replace it with what it links to")

    def inode(self) -> int:
        """Tells one file from the next that takes its place; 0 if there is none."""
        try:
            return self.path.stat().st_ino
        except OSError:
            return 0

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise GalleryError(f"{self.url}: another process has been writing for {SECONDS:.0f} s") from error
            raise GalleryError(f"{self.url}: {FILE} is damaged or cannot be used: {str(error)[:160]}") from error
