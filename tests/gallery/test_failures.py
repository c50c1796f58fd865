"""What a backfill says of items that could not be embedded, and of processes that are gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gallery.galleries import COUNT, FIRST, IDS, NEW_VECTORS, OLD_VECTORS, SECOND, embed, upgraded

from nobackfill.gallery import Embedded, Gallery, open_store
from nobackfill.gallery import job as journal

BAD = IDS[3]


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    yield upgraded(store)
    store.close()


def without_bad(ids: list[str]) -> Embedded:
    good = [name for name in ids if name != BAD]
    return Embedded(good, embed(good).vectors, {BAD: "does not decode"} if BAD in ids else {})


def test_an_item_that_is_removed_while_it_cannot_be_embedded_is_missing(gallery: Gallery) -> None:
    def removing(ids: list[str]) -> Embedded:
        gallery.delete([BAD])
        return without_bad(ids)

    job = gallery.backfill(removing, fingerprint=SECOND.fingerprint)
    assert (job.replaced, job.missing, job.failed, job.errors) == (COUNT - 1, 1, 0, {})


def test_an_item_that_is_changed_while_it_cannot_be_embedded_is_embedded_again(gallery: Gallery) -> None:
    asked = list[list[str]]()

    def changing(ids: list[str]) -> Embedded:
        asked.append(ids)
        if len(asked) > 1:
            return embed(ids)
        gallery.set_payloads({BAD: {"repaired": True}})
        return without_bad(ids)

    job = gallery.backfill(changing, fingerprint=SECOND.fingerprint)
    assert (job.replaced, job.failed, asked[1:]) == (COUNT, 0, [[BAD]])


@pytest.mark.parametrize(
    ("target", "then", "counted"),
    [
        ("all", "remove", (59, 0, 1, 0)),
        ("all", "new vector", (59, 1, 0, 0)),
        ("all", "old vector", (60, 0, 0, 0)),
        (50, "remove", (49, 0, 1, 0)),
        (50, "new vector", (49, 1, 0, 0)),
        (50, "old vector", (49, 0, 0, 1)),  # no other turn: the target is not the whole
        ("all", "nothing", (59, 0, 0, 1)),
    ],
)
def test_an_item_that_failed_and_was_changed_later_is_no_failure(
    gallery: Gallery, target: str | int, then: str, counted: tuple[int, ...]
) -> None:
    repaired = list[str]()

    def once(ids: list[str]) -> Embedded:
        return embed(ids) if repaired else without_bad(ids)

    def after(_: int, progress: journal.Progress) -> None:
        if progress.errors and not repaired:
            repaired.append(then)
            if then == "remove":
                gallery.delete([BAD])
            elif then == "new vector":
                gallery.upsert([BAD], NEW_VECTORS[3:4], fingerprint=SECOND.fingerprint)
            elif then == "old vector":
                gallery.upsert([BAD], OLD_VECTORS[3:4], fingerprint=FIRST.fingerprint)

    job = gallery.backfill(
        once, fingerprint=SECOND.fingerprint, target=target, order="oldest", batch_size=10, on_batch=after
    )
    assert (job.replaced, job.already, job.missing, job.failed) == counted
    assert list(job.errors) == [BAD] * job.failed


def test_a_process_that_was_killed_has_no_rate(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: int, progress: journal.Progress) -> None:
        if progress.done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.backfill(embed, fingerprint=SECOND.fingerprint, batch_size=10, max_rate=200, on_batch=stop)
    lately = gallery.status()
    assert lately.job is not None
    assert lately.job.rate > 0
    later = time.time() + 3600
    monkeypatch.setattr("nobackfill.gallery.job.time.time", lambda: later)
    now = gallery.status()
    assert now.job is not None
    assert (now.job.rate, now.items_per_second) == (0, now.job.done / now.job.seconds)
