"""What `verify` finds, the same on every store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import (
    COUNT,
    IDS,
    NEW_VECTORS,
    OLD_VECTORS,
    upgraded,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import ItemBatch, Store, verifying


def test_verify_beside_a_backfill_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, real = upgraded(store), store.scan

    def scan(size: int) -> Any:
        for items in real(size):
            yield items
            store.replace(ItemBatch([IDS[5]], 2, NEW_VECTORS[5:6] / np.linalg.norm(NEW_VECTORS[5]), []), keep_old=False)

    monkeypatch.setattr(store, "scan", scan)
    with pytest.raises(GalleryError, match="replaced during the check"):
        gallery.verify()


def test_verify_names_what_is_wrong(store: Store) -> None:
    gallery = upgraded(store)
    store.replace(ItemBatch([IDS[2]], 2, 2 * NEW_VECTORS[2:3], []), keep_old=False)
    assert gallery.verify() == [f"item {IDS[2]!r}: its vector has norm 2.0000, expected 1"]


def test_verify_holds_few_ids_and_misses_no_double(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, real, held = upgraded(store), store.scan, []
    monkeypatch.setattr(verifying, "PIECE", 10)
    monkeypatch.setattr(verifying, "PAGE", 7)
    add = verifying._SortedIds.add

    def watched(ids: Any, names: list[str]) -> None:
        add(ids, names)
        held.append(len(ids._held))

    def scan(size: int) -> Any:
        yield from real(size)
        yield ItemBatch(["odd\nid", "odd\nid", IDS[2]], 1, OLD_VECTORS[:3], [])

    monkeypatch.setattr(verifying._SortedIds, "add", watched)
    assert gallery.verify() == []
    assert max(held) < 10
    monkeypatch.setattr(store, "scan", scan)
    problems = gallery.verify()
    assert sorted(problems[:2]) == sorted([f"duplicate item {IDS[2]!r}", "duplicate item 'odd\\nid'"])
    assert problems[2:] == [f"the store counts {{1: {COUNT}}} items by generation, a scan counts {{1: {COUNT + 3}}}"]
