"""Rollbacks beside a backfill, killed half-way, or refused; on one store, for the stores do the same here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gallery.galleries import (
    COUNT,
    FIRST,
    NEW_VECTORS,
    OLD_VECTORS,
    SECOND,
    PowerError,
    embed,
    kill_rollback,
    upgraded,
)

from nobackfill.cli.app import run
from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, Store, backfill, open_store


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    yield store
    store.close()


def test_a_backfill_that_waits_for_a_rollback_does_not_go_to_what_that_forgets(
    folder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, lock = upgraded(folder), backfill._waiting_lock

    @contextlib.contextmanager
    def late(store: Store) -> Iterator[None]:
        Gallery.open(store).rollback("first", forget=True)
        with lock(store):
            yield

    monkeypatch.setattr(backfill, "_waiting_lock", late)
    with pytest.raises(GalleryError, match="is not of this gallery's lineage"):
        gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    assert (folder.counts(), gallery.status().job) == ({1: COUNT}, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1, found 0"),
        ({"batch_size": -1}, "batch_size: expected at least 1, found -1"),
        ({"max_rate": 0}, "max_rate: expected more than 0 items a second, or None, found 0"),
    ],
)
def test_a_backfill_that_could_not_work_makes_no_plan(folder: Store, options: dict[str, int], message: str) -> None:
    gallery = upgraded(folder)
    with pytest.raises(GalleryError, match=message):
        gallery.backfill(embed, fingerprint=SECOND.fingerprint, **options)  # type: ignore[arg-type]
    assert gallery.status().job is None


def test_a_rollback_after_a_switch_finds_every_item_though_it_is_killed(
    folder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = upgraded(folder)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    gallery.switch()
    kill_rollback(gallery, monkeypatch)
    gallery = Gallery.open(folder)
    for queries, generation in ((OLD_VECTORS, FIRST), (NEW_VECTORS, SECOND)):
        assert len(gallery.search(queries[:1], COUNT, generation.fingerprint)[0]) == COUNT
    gallery.rollback("first")
    assert (folder.counts(), gallery.manifest.serves_from) == ({1: COUNT}, 1)


@pytest.mark.parametrize("forget", [False, True])
def test_a_refused_rollback_leaves_job_and_lineage_as_they_were(folder: Store, forget: bool) -> None:
    gallery = upgraded(folder)
    gallery.switch(leave_old=True)

    def fail(ids: list[str]) -> Embedded:
        if folder.counts().get(2):
            raise PowerError
        return embed(ids)

    with pytest.raises(PowerError):
        gallery.backfill(fail, fingerprint=SECOND.fingerprint, target="50%", batch_size=10)
    gallery.upsert(["late"], NEW_VECTORS[:1], fingerprint=SECOND.fingerprint)
    before = gallery.status()
    with pytest.raises(GalleryError, match="items without a kept vector of first or older: 1 .*remove or") as caught:
        gallery.rollback("first", forget=forget)
    assert ("--leave-new" in str(caught.value)) == (not forget)  # which goes without it only
    assert gallery.status() == before
    assert before.job is not None
    assert not before.job.finished
    resumed = gallery.backfill(embed, fingerprint=SECOND.fingerprint, target="50%")
    assert (resumed.id, resumed.replaced) == (before.job.id, COUNT // 2)


def test_forgetting_a_model_and_leaving_its_vectors_is_refused(folder: Store) -> None:
    gallery = upgraded(folder)
    with pytest.raises(GalleryError, match=r"expected forget \(--forget\) or leave_new \(--leave-new\), found both"):
        gallery.rollback("first", forget=True, leave_new=True)
    assert gallery.manifest.newest == 2
    assert run(["gallery", "rollback", folder.url, "--to", "first", "--forget", "--leave-new", "--yes"]) == 2
