"""A lock on a server without locks: a lease that its owner renews, and that ends with it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.base import lock_lost, lock_taken

LEASE = 30.0  # seconds until the lock of a silent owner may be taken


class _Documents(Protocol):
    url: str

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, data: bytes | None) -> None: ...


@contextlib.contextmanager
def lease(store: _Documents, name: str = "lease") -> Iterator[Callable[[], None]]:
    """See `Store.lock`; `name` is that of the document which says who has it."""
    owner, ended = uuid.uuid4().hex, threading.Event()

    def holder() -> dict[str, str | float]:
        content: dict[str, str | float] = json.loads(store.read(name) or b"{}")
        return content

    def renew() -> None:
        store.write(name, json.dumps({"owner": owner, "until": time.time() + LEASE}).encode())

    def ours() -> bool:
        return holder().get("owner") == owner

    before = holder()
    if before and float(before["until"]) > time.time():
        raise lock_taken(store.url)
    renew()
    time.sleep(0.2)  # had another one written at the same moment, the later one stays
    if not ours():
        raise lock_taken(store.url)

    def keep() -> None:
        while not ended.wait(LEASE / 3):
            with contextlib.suppress(GalleryError):
                if not ours():  # silent for too long: another one has it
                    return
                renew()

    def check() -> None:
        if not ours():
            raise lock_lost(store.url)

    renewing = threading.Thread(target=keep, daemon=True)
    renewing.start()
    try:
        yield check
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(GalleryError):
            if ours():
                store.write(name, None)
