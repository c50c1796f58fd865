"""Named locks of a PostgreSQL server, which lets go of them when their owner is gone."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator

from nobackfill.gallery.stores.base import UnreachableError, lock_lost, lock_taken
from nobackfill.gallery.stores.postgres_connection import PostgresConnection


@contextlib.contextmanager
def advisory_lock(db: PostgresConnection, name: str) -> Iterator[Callable[[], None]]:
    """See `Store.lock`: an advisory lock of a connection of its own."""
    key = lock_key(name)
    with contextlib.closing(db.connect(autocommit=True)) as connection:
        try:
            found = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
        except db.psycopg.Error as error:  # the server stopped since it answered
            raise UnreachableError(f"{db.url}: no answer when asked for a lock") from error
        if not found or not found[0]:
            raise lock_taken(db.url)

        def check() -> None:
            try:
                connection.execute("SELECT 1")
            except db.psycopg.Error as error:
                raise lock_lost(db.url) from error

        try:
            yield check
        finally:  # closing the connection would do, but the server notices that a little later
            with contextlib.suppress(db.psycopg.Error):
                connection.execute("SELECT pg_advisory_unlock(%s)", (key,))


def lock_key(name: str) -> int:
    """The number of the lock of this name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
