"""Backfills and rollbacks, the same on every store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import (
    COUNT,
    FIRST,
    IDS,
    NEW,
    NEW_VECTORS,
    OLD,
    OLD_VECTORS,
    SECOND,
    PowerError,
    all_ids,
    answers,
    embed,
    kill_rollback,
    upgraded,
    vectors,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Store, backfill
from nobackfill.gallery.job import read_job, tallied
from nobackfill.gallery.stores.base import UnreachableError
from nobackfill.gallery.vectors import vectors_of


def test_backfill_exchanges_each_item_once(store: Store) -> None:
    gallery = upgraded(store)
    job = gallery.backfill(embed, fingerprint=SECOND.fingerprint, target="25%", batch_size=4)
    assert (job.items, job.replaced, job.errors) == (15, 15, {})
    assert store.counts() == {1: 45, 2: 15}
    job = gallery.backfill(embed, fingerprint=SECOND.fingerprint, batch_size=16)
    assert (job.items, job.pieces, job.done) == (45, 1, 45)
    assert store.counts() == {2: 60}
    known, found = vectors_of(store, IDS, 2)
    assert known == IDS
    np.testing.assert_allclose(found, NEW_VECTORS, atol=1e-6)
    assert gallery.verify() == []
    assert gallery.backfill(embed, fingerprint=SECOND.fingerprint).items == 0
    assert all_ids(store, 2) == IDS  # in the order of insertion


def test_a_killed_backfill_goes_on_as_it_was_planned(store: Store) -> None:
    gallery, asked = upgraded(store), []

    def fail(ids: list[str]) -> Embedded:
        asked.append(ids)
        if len(asked) == 3:
            raise PowerError
        return embed(ids)

    with pytest.raises(PowerError):
        gallery.backfill(fail, fingerprint=SECOND.fingerprint, target=30, batch_size=8, seed=5)
    job = read_job(store)
    assert job
    job = tallied(store, job)
    assert (job.done, job.items, job.finished) == (16, 30, False)
    assert store.counts() == {1: 44, 2: 16}
    # Other wishes come too late: the plan stands.
    job = gallery.backfill(fail, fingerprint=SECOND.fingerprint, target="90%", batch_size=3, order="oldest")
    assert (job.replaced, job.items, job.finished) == (30, 30, True)
    assert asked[2] == asked[3]
    assert store.counts() == {1: 30, 2: 30}
    assert len({name for ids in (asked[:2] + asked[3:]) for name in ids}) == 30


def test_missing_items_stay_old_and_are_listed(store: Store) -> None:
    gallery = upgraded(store)

    def some(ids: list[str]) -> Embedded:
        lost = {name: "gone" for name in ids if IDS.index(name) % 10 == 3}
        return embed([name for name in ids if name not in lost]).__class__(
            [name for name in ids if name not in lost], embed([name for name in ids if name not in lost]).vectors, lost
        )

    job = gallery.backfill(some, fingerprint=SECOND.fingerprint, batch_size=10, order="oldest")
    assert set(job.errors) == {name for place, name in enumerate(IDS) if place % 10 == 3}
    assert store.counts() == {1: 6, 2: 54}
    none = gallery.backfill(
        lambda ids: Embedded([], np.empty((0, NEW)), dict.fromkeys(ids, "gone")), fingerprint=SECOND.fingerprint
    )
    assert (none.replaced, len(none.errors)) == (0, 6)


def test_orders(store: Store) -> None:
    gallery = upgraded(store)

    def planned(**wishes: Any) -> list[str]:
        class EndError(Exception): ...

        seen: list[str] = []

        def look(ids: list[str]) -> Embedded:
            seen.extend(ids)
            raise EndError

        with pytest.raises(EndError):
            gallery.backfill(look, fingerprint=SECOND.fingerprint, batch_size=COUNT, **wishes)
        store.write("job", None)
        return seen

    assert planned(order="oldest") == IDS
    assert planned(order="random") != IDS
    assert sorted(planned(order="random")) == sorted(IDS)
    assert planned(order="random", seed=1) != planned(order="random", seed=2)
    scores = OLD_VECTORS @ OLD_VECTORS.T
    np.fill_diagonal(scores, -1)
    assert planned(order="isolated") == [IDS[place] for place in np.argsort(scores.max(axis=1), kind="stable")]
    assert planned(order="dense") == planned(order="isolated")[::-1]
    with pytest.raises(GalleryError, match="no search results are recorded; search with --remember"):
        planned(order="popular")
    for _ in range(2):
        (hits,) = gallery.search(NEW_VECTORS[7:8], 3, SECOND.fingerprint, remember=True)
    assert set(planned(order="popular")[:3]) == {hit.id for hit in hits}
    for target in ("0%", "150%", -3, 0, 0.5, 1.0, True, "half", "1.5"):
        with pytest.raises(GalleryError, match="--target .*: expected a share of the whole such as 25%, all, or a num"):
            planned(target=target)


def test_rollback_brings_kept_vectors_back(store: Store) -> None:
    gallery = upgraded(store)
    before = answers(gallery, vectors(OLD, 3, 4), FIRST)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target="50%")
    assert store.counts() == {1: 30, 2: 30}
    with pytest.raises(GalleryError, match="no generation 'zeroth'; there are first, second"):
        gallery.rollback("zeroth")
    gallery.rollback("first")
    assert store.counts() == {1: 60}
    assert len(gallery.search(NEW_VECTORS, 3, SECOND.fingerprint)) == COUNT  # the newer model's queries go on
    gallery.rollback("first", forget=True)
    assert [generation.name for generation in gallery.manifest.generations] == ["first"]
    after = answers(gallery, vectors(OLD, 3, 4), FIRST)
    assert [[name for name, _ in line] for line in before] == [[name for name, _ in line] for line in after]
    with pytest.raises(GalleryError, match="is not of this gallery's lineage"):
        gallery.search(NEW_VECTORS, 3, SECOND.fingerprint)
    gallery.upgrade(SECOND, embed)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, keep_old=False)
    with pytest.raises(GalleryError, match="items without a kept vector of first or older: 60"):
        gallery.rollback("first")
    assert store.counts() == {2: 60}


def test_a_rollback_killed_half_way_leaves_no_batch_counted_as_done(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, asked = upgraded(store), []

    def fail(ids: list[str]) -> Embedded:
        asked.append(ids)
        if len(asked) == 3:
            raise PowerError
        return embed(ids)

    with pytest.raises(PowerError):
        gallery.backfill(fail, fingerprint=SECOND.fingerprint, batch_size=10, keep_old=True)
    kill_rollback(gallery, monkeypatch)
    assert store.counts() == {1: COUNT}
    assert gallery.backfill(embed, fingerprint=SECOND.fingerprint).replaced == COUNT
    assert store.counts() == {2: COUNT}


def test_an_embedder_that_returns_other_items_is_refused(store: Store) -> None:
    gallery = upgraded(store)
    for wrong in ([IDS[0], IDS[0]], ["another"]):
        made = Embedded(wrong, NEW_VECTORS[: len(wrong)], {})
        with pytest.raises(GalleryError, match="duplicate item, or one that was not requested"):
            gallery.backfill(lambda _, made=made: made, fingerprint=SECOND.fingerprint, order="oldest")  # type: ignore[misc]
    assert store.counts() == {1: COUNT}
    assert gallery.backfill(embed, fingerprint=SECOND.fingerprint).replaced == COUNT


def test_a_store_that_does_not_answer_is_tried_again_then_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    gallery, real, calls = upgraded(store), store.replace, [0]
    monkeypatch.setattr("time.sleep", pauses.append)

    def flaky(*arguments: Any, **options: Any) -> list[str]:
        calls[0] += 1
        if calls[0] in (2, 3) or calls[0] > 5:
            raise UnreachableError("connection refused")
        return real(*arguments, **options)

    monkeypatch.setattr(store, "replace", flaky)
    with pytest.raises(GalleryError, match="does not answer .connection refused.; progress is saved"):
        gallery.backfill(embed, fingerprint=SECOND.fingerprint, batch_size=10)
    assert pauses[:2] == [0.5, 1.0]
    assert len(pauses) == 2 + 5
    monkeypatch.setattr(store, "replace", real)
    assert store.counts() == {1: 30, 2: 30}
    gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    assert store.counts() == {2: 60}


def test_one_writer_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = upgraded(store)
    monkeypatch.setattr(backfill, "WAIT", 0.3)  # not two minutes
    with store.lock(), pytest.raises(GalleryError, match="another process is changing this gallery"):
        gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint)
