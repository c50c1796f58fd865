"""How often items were found by searches, for stores that have no counter of their own: a small SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from nobackfill.errors import GalleryError

SECONDS = 30.0  # to wait for another process that is counting


class HitCounts:
    """Counts by item; several processes may add to them at once.

    Args:
        path: of the file; made by the first count.
        url: of the store, for messages.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url

    def add(self, hits: Mapping[str, int]) -> None:
        """Adds to what is there, in one transaction."""
        with self._open() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS hits (id TEXT PRIMARY KEY, hits INTEGER NOT NULL)")
            connection.executemany(
                "INSERT INTO hits VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET hits = hits + excluded.hits",
                hits.items(),
            )

    def most_first(self) -> Iterator[tuple[str, int]]:
        """Items and counts, the largest first."""
        if not self.path.exists():
            return
        with self._open() as connection:
            yield from connection.execute("SELECT id, hits FROM hits ORDER BY hits DESC, id")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=SECONDS, isolation_level=None)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise GalleryError(f"{self.url}: hits cannot be counted in {self.path.name}: {error}") from error
