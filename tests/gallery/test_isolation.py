"""What keeps a gallery whole beside crashes and concurrent writers; each test fails if its one line of code goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import COUNT, IDS, NEW_VECTORS, OLD, OLD_VECTORS, SECOND, embed, table_name, upgraded

from nobackfill.errors import GalleryError
from nobackfill.files import atomic_file
from nobackfill.gallery import Gallery, ItemBatch, Store, open_store
from nobackfill.gallery.stores.base import Nearest
from nobackfill.gallery.stores.postgres_store import PostgresStore


def test_a_file_is_on_the_disk_before_it_takes_its_place_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        fsync(handle)

    def renamed(self: Path, target: Path) -> Any:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with atomic_file(tmp_path / "x") as temporary:
        temporary.write_text("whole")
    assert done == ["file", "rename", "folder"]


def test_the_database_waits_for_the_disk(tmp_path: Path) -> None:
    store: Any = open_store(f"faiss:{tmp_path / 'store'}")
    upgraded(store)
    with store.db.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    store.close()


def test_of_two_sights_of_an_item_the_newer_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = upgraded(store)
    sights = {
        1: Nearest([[IDS[0], IDS[1]]], [np.array([0.9, 0.5], np.float32)]),
        2: Nearest([[IDS[0]]], [np.array([0.2], np.float32)]),
    }
    monkeypatch.setattr(store, "search", lambda *_: sights)
    (hits,) = gallery.search(NEW_VECTORS[:1], 5, SECOND.fingerprint)
    assert [(hit.id, hit.generation, round(hit.score, 2)) for hit in hits] == [
        (IDS[1], "first", 0.5),
        (IDS[0], "second", 0.2),
    ]


def test_a_search_of_postgresql_is_of_one_moment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{server}#{table_name()}"
    store, other = open_store(url), open_store(url)
    upgraded(store)
    real = PostgresStore._nearest

    def look(self: PostgresStore, cursor: Any, number: int, *rest: Any) -> Nearest:
        found = real(self, cursor, number, *rest)
        if number == 1:  # between the two generations another process replaces everything
            other.replace(ItemBatch(IDS, 2, NEW_VECTORS, []), keep_old=False)
        return found

    monkeypatch.setattr(PostgresStore, "_nearest", look)
    found = store.search({1: OLD_VECTORS[:1], 2: NEW_VECTORS[:1]}, COUNT)
    assert (len(found[1].ids[0]), len(found[2].ids[0])) == (COUNT, 0)
    for each in (store, other):
        each.close()


def test_a_search_of_an_adopted_table_is_of_one_moment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from nobackfill.gallery.stores import adopted_reading

    pytest.importorskip("psycopg")
    applications = pytest.importorskip("tests.gallery.applications")
    application = applications.Application(server)
    store = application.adopt().store
    Gallery.open(store).upgrade(applications.SECOND, application.embed, sample=20)
    other = application.open().store
    real = adopted_reading.nearest

    def look(cursor: Any, table: Any, number: int, *rest: Any) -> Nearest:
        found = real(cursor, table, number, *rest)
        if number == 1:  # between the two generations another process replaces everything
            other.replace(ItemBatch(application.ids, 2, NEW_VECTORS, []), keep_old=True)
        return found

    monkeypatch.setattr(adopted_reading, "nearest", look)
    found = store.search({1: OLD_VECTORS[:1], 2: NEW_VECTORS[:1]}, COUNT)
    assert (len(found[1].ids[0]), len(found[2].ids[0])) == (COUNT, 0)
    monkeypatch.undo()
    assert store.counts() == {2: COUNT}
    application.close()


def test_a_write_that_fails_half_way_changes_nothing(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target="50%", order="oldest")
    before = store.fetch(IDS)
    rows = np.ones((3, OLD + 5), np.float32)
    for action in (
        lambda: store.upsert(ItemBatch([IDS[0], IDS[1], "x"], 1, OLD_VECTORS[:2], [{}, {}, {}])),
        lambda: store.replace(ItemBatch(IDS[40:43], 2, rows[:2], []), keep_old=True),
    ):
        with pytest.raises((ValueError, GalleryError), match="zip|expected length|out of bounds"):
            action()
    for old, now in zip(before, store.fetch(IDS), strict=True):
        assert (old.ids, old.generation, old.versions, old.payloads) == (
            now.ids,
            now.generation,
            now.versions,
            now.payloads,
        )
        np.testing.assert_array_equal(old.vectors, now.vectors)
