"""The lock of a gallery that lives in a folder of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from nobackfill.gallery.stores.base import lock_taken


@contextlib.contextmanager
def folder_lock(path: Path, url: str) -> Iterator[Callable[[], None]]:
    """A lock on a file: the system lets go of it when its owner is gone.

    Yields:
        A check that the lock is still held, which cannot fail here.

    Raises:
        GalleryError: if another process has it; `url` names the gallery.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)  # a killed owner's lock is gone at once
    except Timeout:
        raise lock_taken(url) from None
    try:
        yield lambda: None  # the system keeps it for as long as this process lives
    finally:
        lock.release()
