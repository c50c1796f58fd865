"""What `verify` finds, the same on every store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import (
    IDS,
    NEW_VECTORS,
    upgraded,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import ItemBatch, Store


def test_verify_beside_a_backfill_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, real = upgraded(store), store.scan

    def scan(size: int) -> Any:
        for items in real(size):
            yield items
            store.replace(ItemBatch([IDS[5]], 2, NEW_VECTORS[5:6] / np.linalg.norm(NEW_VECTORS[5]), []), keep_old=False)

    monkeypatch.setattr(store, "scan", scan)
    with pytest.raises(GalleryError, match="replaced while they were checked"):
        gallery.verify()


def test_verify_names_what_is_wrong(store: Store) -> None:
    gallery = upgraded(store)
    store.replace(ItemBatch([IDS[2]], 2, 2 * NEW_VECTORS[2:3], []), keep_old=False)
    assert gallery.verify() == [f"item {IDS[2]!r}: its vector has norm 2.0000, not 1"]
