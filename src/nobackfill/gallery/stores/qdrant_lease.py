"""A lock on a server without locks: a lease that its owner renews, and that ends with it.

The lease says until when it holds by its owner's clock. Clocks of two machines may differ, so this is only a hint: a
lease that looks expired is watched for a while by one's own clock, and taken only if nobody renewed it meanwhile. It
is taken by a conditional write, so of several that try at once one gets it.
"""

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

LEASE = 30.0  # seconds; a third of it passes between two renewals
WATCH = 15.0  # seconds that a lease which looks expired is watched


class _Documents(Protocol):
    url: str

    def read(self, name: str) -> bytes | None: ...
    def exchange(self, name: str, before: bytes | None, after: bytes | None) -> bool:
        """Replace a document if it is what it was before (None: if there is none); whether that was done."""


@contextlib.contextmanager
def lease(store: _Documents, name: str = "lease") -> Iterator[Callable[[], None]]:
    """See `Store.lock`; `name` is that of the document which says who has it."""
    owner, ended = uuid.uuid4().hex, threading.Event()

    def renewed() -> bytes:
        return json.dumps({"owner": owner, "until": time.time() + LEASE, "beat": uuid.uuid4().hex}).encode()

    def held() -> bytes | None:
        """The document, while it is ours."""
        data = store.read(name)
        return data if data is not None and json.loads(data).get("owner") == owner else None

    before = store.read(name)
    if before is not None and (_alive(before) or _renewed(store, name, before)):
        raise lock_taken(store.url)
    if not store.exchange(name, before, renewed()):
        raise lock_taken(store.url)

    def keep() -> None:
        while not ended.wait(LEASE / 3):
            with contextlib.suppress(GalleryError):
                current = held()
                if current is None:  # silent for too long: another one has it
                    return
                store.exchange(name, current, renewed())

    def check() -> None:
        if held() is None:
            raise lock_lost(store.url)

    renewing = threading.Thread(target=keep, daemon=True)
    renewing.start()
    try:
        yield check
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(GalleryError):
            current = held()
            if current is not None:
                store.exchange(name, current, None)


def _alive(data: bytes) -> bool:
    """Whether a lease looks held; one that ends later than any lease can is of a clock that is wrong."""
    left = float(json.loads(data)["until"]) - time.time()
    return 0 < left <= LEASE + WATCH


def _renewed(store: _Documents, name: str, before: bytes) -> bool:
    """Whether the lease changes while it is watched."""
    until = time.monotonic() + WATCH
    while time.monotonic() < until:
        time.sleep(WATCH / 15)
        if store.read(name) != before:
            return True
    return False
