"""What a store in a folder keeps beside its vectors: documents and hits in one SQLite file. And its lock for writes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from nobackfill.errors import GalleryError, one_line
from nobackfill.files import remove_database

SECONDS = 60.0  # to wait for other writers
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS hits (id TEXT PRIMARY KEY, hits INTEGER NOT NULL)",
)


class SideFile:
    """Documents and counts; each change is a transaction, and several processes may make them.

    Args:
        path: of the file; made by the first change.
        url: of the store, for messages.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url

    def read(self, name: str) -> bytes | None:
        """A document, None if there is none."""
        if not self.path.is_file():
            return None
        with self._open() as connection:
            asked = "SELECT data FROM documents WHERE name = ?"
            row = connection.execute(asked, (name,)).fetchone() if _begun(connection) else None
        return bytes(row[0]) if row else None

    def write(self, name: str, data: bytes | None) -> None:
        """Replace a document, or remove it."""
        with self._changing() as connection:
            if data is None:
                connection.execute("DELETE FROM documents WHERE name = ?", (name,))
            else:
                connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, data))

    def count(self, hits: Mapping[str, int]) -> None:
        """Adds to the items' numbers of hits."""
        statement = "INSERT INTO hits VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET hits = hits + excluded.hits"
        with self._changing() as connection:
            connection.executemany(statement, hits.items())

    def forget(self, ids: Sequence[str]) -> None:
        """Removes the counts of these items."""
        with self._changing() as connection:
            connection.executemany("DELETE FROM hits WHERE id = ?", [(name,) for name in ids])

    def hits(self) -> Iterator[tuple[str, int]]:
        """Items and counts, the largest first."""
        if not self.path.is_file():
            return
        with self._open() as connection:
            if _begun(connection):
                yield from connection.execute("SELECT id, hits FROM hits ORDER BY hits DESC, id")

    def is_blank(self) -> bool:
        """Whether a process was killed in the first change: what is there is an empty file."""
        if not self.path.is_file():
            return False
        self.read("")  # SQLite takes back what was begun
        return self.path.stat().st_size == 0

    def remove(self) -> None:
        """The file and what SQLite keeps beside it."""
        remove_database(self.path)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        if not self.path.parent.is_dir():
            raise GalleryError(f"{self.url}: no gallery there; create one with `gallery create`")
        with self._open() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                connection.execute(statement)
            yield connection

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=SECONDS, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.Error as error:
            raise GalleryError(f"{self.url}: {self.path.name} cannot be used: {one_line(error, 120)}") from error


def _begun(connection: sqlite3.Connection) -> bool:
    """Whether the tables are there: a process that is killed in the first change leaves a file without."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'documents'").fetchone() is not None


@contextlib.contextmanager
def write_lock(path: Path, url: str) -> Iterator[None]:
    """For the time of one write; waits for other threads and processes. The system frees it when its owner is gone.

    Raises:
        GalleryError: if there is no folder, or others write for more than a minute; `url` names the gallery.
    """
    if not path.parent.is_dir():
        raise GalleryError(f"{url}: no gallery there; create one with `gallery create`")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=SECONDS, poll_interval=0.005)
    except Timeout:
        raise GalleryError(f"{url}: other processes have been writing for {SECONDS:.0f} s; try again later") from None
    try:
        yield
    finally:
        lock.release()
