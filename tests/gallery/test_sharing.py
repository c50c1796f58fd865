"""Several threads, processes and tenants at one gallery; switching over; giving a job up."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery import jobs
from tests.gallery.galleries import (
    COUNT,
    FIRST,
    IDS,
    LAST,
    NEW_VECTORS,
    OLD_VECTORS,
    SECOND,
    THIRD,
    embed,
    fresh,
    table_name,
    upgraded,
    vectors,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, Generation, Store, backfill, open_store, planning
from nobackfill.gallery import job as journal

A, B = {"tenant": "a"}, {"tenant": "b"}


def test_sixteen_threads_share_one_gallery(store: Store) -> None:
    gallery = upgraded(store)
    wanted = [hit.id for hit in gallery.search(NEW_VECTORS[:1], 5, SECOND.fingerprint)[0]]

    def use(number: int) -> list[list[str]]:
        found = []
        for turn in range(4):
            name = f"{number}-{turn}"
            gallery.upsert([name], -NEW_VECTORS[:1], [{"of": number}], fingerprint=SECOND.fingerprint)
            found.append([hit.id for hit in gallery.search(NEW_VECTORS[:1], 5, SECOND.fingerprint)[0]])
            assert gallery.count({"of": number}) == 1
            assert gallery.delete([name]) == 1
        return found

    with ThreadPoolExecutor(16) as pool:
        for found in pool.map(use, range(16)):
            assert found == [wanted] * 4
    assert store.counts() == {1: COUNT}
    assert gallery.verify() == []


def test_two_writers_of_one_item_lose_no_write(store: Store) -> None:
    gallery = upgraded(store)

    def write(_: int) -> None:
        for _ in range(5):
            gallery.set_payloads({IDS[0]: {"a": 1}})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert store.versions([IDS[0]]) == {IDS[0]: 21}


@pytest.mark.parametrize("kind", ["faiss", "postgresql"])
def test_workers_share_a_backfill_no_item_twice_none_left(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"faiss:{tmp_path / 'store'}"
    if kind == "postgresql":
        url = f"{request.getfixturevalue('server')}#{table_name()}"
    ids = [str(number) for number in range(jobs.COUNT)]
    first = Generation(name="first", dim=jobs.OLD, fingerprint="a")
    gallery = Gallery.create(open_store(url), first, [(ids, jobs.vectors(jobs.OLD), [{} for _ in ids])])
    gallery.add_generation(
        Generation(name="second", dim=jobs.NEW, fingerprint="b", compatible_with=("a",)), jobs.vectors(jobs.NEW)
    )
    new, lock, asked = jobs.vectors(jobs.NEW), threading.Lock(), list[str]()

    def slow(some: list[str]) -> np.ndarray:
        with lock:
            asked.extend(some)
        time.sleep(0.005)
        rows: np.ndarray = new[[int(name) for name in some]]
        return rows

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(journal, "PIECE_ITEMS", 200)
        patch.setattr("nobackfill.gallery.backfill.POLL", 0.02)

        def work(_: int) -> Any:
            mine = Gallery.open(open_store(url))
            try:
                return mine.backfill(slow, fingerprint="b", batch_size=50)
            finally:
                mine.store.close()

        ends = list(pool.map(work, range(3)))
    assert sorted(asked) == sorted(ids)
    assert gallery.store.counts() == {2: jobs.COUNT}
    assert max(job.replaced for job in ends) == jobs.COUNT
    assert gallery.verify() == []
    gallery.store.close()


def test_a_job_that_another_process_ends_between_two_looks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has just read that the job goes on finds its plan removed; so does one who asks for its state."""
    gallery = upgraded(store)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(backfill, "end_job", lambda *_: 1 / 0)  # all pieces are done, and the process dies
        gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    stale = journal.read_job(store)
    assert stale is not None
    assert not stale.ended
    looks: list[journal.Job] = []

    def current(store: Store, job: journal.Job) -> journal.Job:
        seen = looked(store, job)
        if not looks:
            planning.end_job(store, seen)
        looks.append(seen)
        return seen

    looked = backfill._current
    monkeypatch.setattr(backfill, "_current", current)
    ended = gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    assert not looks[0].ended
    assert ended.ended
    assert ended.replaced == COUNT
    assert journal.tallied(store, stale) == ended
    store.write(journal.JOB, stale.model_dump_json().encode())  # the plan is gone while the job goes on: damage
    with pytest.raises(GalleryError, match="damaged: 'progress-000000' is missing"):
        journal.tallied(store, stale)


def test_a_gallery_held_to_a_tenant_sees_and_changes_nothing_else(store: Store) -> None:
    everything = Gallery.create(store, FIRST)
    one, other = Gallery.open(store, scope=A), Gallery.open(store, scope=B)
    one.upsert(IDS[:20], OLD_VECTORS[:20], fingerprint=FIRST.fingerprint)
    other.upsert(IDS[20:30], OLD_VECTORS[20:30], [{"x": 1}] * 10, fingerprint=FIRST.fingerprint)
    assert (one.count(), other.count(), other.count({"x": 1}), one.count({"x": 1})) == (20, 10, 10, 0)
    assert everything.store.payloads([IDS[20]]) == {IDS[20]: {"x": 1, "tenant": "b"}}
    (hits,) = one.search(OLD_VECTORS[25:26], COUNT, FIRST.fingerprint)
    assert {hit.id for hit in hits} == set(IDS[:20])
    assert (one.search(OLD_VECTORS[:1], 5, FIRST.fingerprint, where=B), one.count(B)) == ([[]], 0)
    with pytest.raises(GalleryError, match="its 'tenant' is 'b', but this gallery is held to 'a'"):
        one.upsert(["z"], OLD_VECTORS[:1], [{"tenant": "b"}], fingerprint=FIRST.fingerprint)
    with pytest.raises(GalleryError, match="is taken outside"):
        one.upsert([IDS[20]], OLD_VECTORS[:1], fingerprint=FIRST.fingerprint)
    assert (one.delete(IDS[18:22]), one.set_payloads({IDS[0]: {"y": 2}, IDS[25]: {"y": 2}})) == (2, 1)
    assert everything.store.payloads([IDS[0], IDS[25]]) == {
        IDS[0]: {"y": 2, "tenant": "a"},
        IDS[25]: {"x": 1, "tenant": "b"},
    }
    everything.upgrade(SECOND, embed)
    for verb in ("compact", "verify", "switch"):
        with pytest.raises(GalleryError, match=f"{verb} concerns all items; open the gallery without a scope"):
            getattr(one, verb)()
    job = one.backfill(embed, fingerprint=SECOND.fingerprint, target="50%")
    assert (job.items, one.status().items, other.status().items) == (9, (9, 9), (10, 0))
    with pytest.raises(GalleryError, match="expected a value for each key"):
        Gallery.open(store, scope={"tenant": {"in": ["a", "b"]}})


def test_payloads_are_checked_before_they_are_stamped(tmp_path: Path) -> None:
    fresh(open_store(f"faiss:{tmp_path / 'store'}"))
    gallery = Gallery.open(f"faiss:{tmp_path / 'store'}", scope={"tenant": "a"})
    for payloads, message in (
        ([None], "payload of 'new': expected an object, found NoneType"),
        ([{}, {}], "found 1 ids and 2 payloads"),
        ([], "found 1 ids and 0 payloads"),
    ):
        with pytest.raises(GalleryError, match=message):
            gallery.upsert(["new"], OLD_VECTORS[:1], payloads, fingerprint=FIRST.fingerprint)  # type: ignore[arg-type]
    with pytest.raises(GalleryError, match="payload of 'new': expected an object, found list"):
        gallery.set_payloads({"new": [1]})  # type: ignore[dict-item]
    gallery.upsert(["new"], OLD_VECTORS[:1], fingerprint=FIRST.fingerprint)
    assert gallery.store.payloads(["new"]) == {"new": {"tenant": "a"}}
    with pytest.raises(GalleryError, match="expected 0 results or more, found -1"):
        gallery.search(OLD_VECTORS[:1], -1, FIRST.fingerprint)


def test_switching_over_serves_the_newest_only_and_rollback_undoes_it(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=COUNT - 1, order="oldest")
    with pytest.raises(GalleryError, match="1 item is not embedded by second yet and would no longer be found"):
        gallery.switch()
    gallery.switch(leave_old=True)
    (hits,) = gallery.search(NEW_VECTORS[:1], COUNT, SECOND.fingerprint)
    assert {hit.id for hit in hits} == set(IDS[:-1])
    for action in (
        lambda: gallery.search(OLD_VECTORS[:1], 3, FIRST.fingerprint),
        lambda: gallery.upsert(["x"], OLD_VECTORS[:1], fingerprint=FIRST.fingerprint),
    ):
        with pytest.raises(GalleryError, match="was switched to second; first is no longer served: embed with second"):
            action()
    gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    assert len(gallery.search(NEW_VECTORS[:1], COUNT, SECOND.fingerprint)[0]) == COUNT
    gallery.add_generation(LAST, vectors(THIRD, 4))  # the next upgrade: second and third are served
    assert len(gallery.search(NEW_VECTORS[:1], 3, SECOND.fingerprint)[0]) == 3
    gallery.rollback("first")
    assert len(gallery.search(OLD_VECTORS[:1], COUNT, FIRST.fingerprint)[0]) == COUNT
    assert (store.counts(), gallery.status().serves_from) == ({1: COUNT}, 1)


def test_a_rollback_to_a_model_that_was_never_backfilled_serves_the_items_it_brings_back(store: Store) -> None:
    gallery, newest = upgraded(store), vectors(THIRD, 4)
    gallery.add_generation(LAST, newest)
    gallery.backfill(lambda ids: newest[[IDS.index(name) for name in ids]], fingerprint=LAST.fingerprint)
    gallery.switch()
    gallery.rollback("second")
    assert store.counts() == {1: COUNT}
    for queries, generation in ((OLD_VECTORS, FIRST), (NEW_VECTORS, SECOND), (newest, LAST)):
        assert len(gallery.search(queries[:1], COUNT, generation.fingerprint)[0]) == COUNT


def test_a_job_is_given_up_but_not_under_a_worker(store: Store) -> None:
    gallery = upgraded(store)

    class PowerError(Exception): ...

    def fail(ids: list[str]) -> Any:
        if store.counts().get(2):
            for action in (gallery.drop_job, lambda: gallery.rollback("first")):
                with pytest.raises(GalleryError, match="a backfill is running; stop it"):
                    action()
            raise PowerError
        return embed(ids)

    with pytest.raises(PowerError):
        gallery.backfill(fail, fingerprint=SECOND.fingerprint, batch_size=10, target="50%")
    dropped = gallery.drop_job()
    assert dropped is not None
    assert (dropped.target, gallery.status().job, gallery.drop_job()) == ("50%", None, None)
    assert [store.read(name) for name in ("piece-000000", "progress-000000")] == [None, None]
    assert store.counts() == {1: COUNT - 10, 2: 10}
    assert gallery.backfill(embed, fingerprint=SECOND.fingerprint).replaced == COUNT - 10


def test_a_gallery_is_not_replaced_under_a_worker(store: Store) -> None:
    gallery, refused = upgraded(store), list[str]()

    def replaced(_: int, progress: journal.Progress) -> None:
        if progress.done == 30:
            with pytest.raises(GalleryError, match="a backfill is running; stop it") as caught:
                Gallery.create(store, FIRST, replace=True)
            refused.append(str(caught.value))

    gallery.backfill(embed, fingerprint=SECOND.fingerprint, batch_size=10, on_batch=replaced)
    assert (len(refused), store.counts(), gallery.verify()) == (1, {2: COUNT}, [])
    store.write(journal.JOB, b"damaged")
    assert Gallery.create(store, FIRST, [(IDS, OLD_VECTORS, [{} for _ in IDS])], replace=True).count() == COUNT
    assert (store.counts(), store.read(journal.JOB)) == ({1: COUNT}, None)


def test_a_limit_on_the_rate_holds(tmp_path: Path) -> None:
    gallery = upgraded(open_store(f"faiss:{tmp_path / 'store'}"))
    started, seen = time.perf_counter(), list[float]()
    gallery.backfill(
        embed,
        fingerprint=SECOND.fingerprint,
        batch_size=10,
        max_rate=100,
        on_batch=lambda _, progress: seen.append(progress.rate),
    )
    assert time.perf_counter() - started >= COUNT / 100
    assert len(seen) == 6
    assert all(0 < rate <= 101 for rate in seen)
