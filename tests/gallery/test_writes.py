"""Items that are added, changed and removed at any time, the same on every store."""

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
    PAYLOADS,
    SECOND,
    embed,
    fresh,
    upgraded,
    vectors,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, ItemBatch, Store

OTHER = vectors(NEW, 7)


def held(gallery: Gallery) -> dict[str, tuple[int, bytes]]:
    return {
        name: (items.generation, np.round(vector, 5).tobytes())
        for items in gallery.store.fetch(IDS)
        for name, vector in zip(items.ids, items.vectors, strict=True)
    }


def test_an_empty_gallery_is_filled_later(store: Store) -> None:
    gallery = Gallery.create(store, FIRST)
    assert (gallery.count(), gallery.status().total, gallery.verify()) == (0, 0, [])
    assert gallery.search(OLD_VECTORS[:2], 3, FIRST.fingerprint) == [[], []]
    with pytest.raises(GalleryError, match="is empty; create it with second, or add items first"):
        gallery.upgrade(SECOND, embed)
    gallery.upsert(IDS, OLD_VECTORS, PAYLOADS, fingerprint=FIRST.fingerprint)
    assert store.counts() == {1: COUNT}
    (hits,) = gallery.search(OLD_VECTORS[3:4], 1, FIRST.fingerprint)
    assert (hits[0].id, hits[0].payload) == (IDS[3], PAYLOADS[3])
    assert [name for ids in store.ids(1) for name in ids] == IDS


def test_an_upsert_replaces_an_item_whole(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target="50%", order="oldest")
    new, old = IDS[1], IDS[50]
    gallery.upsert([old, "another"], OTHER[:2], [{"a": 1}, {"b": [1]}], fingerprint=SECOND.fingerprint)
    gallery.upsert([new], OLD_VECTORS[9:10], fingerprint=FIRST.fingerprint)  # of an older client
    assert store.counts() == {1: 30, 2: 31}
    assert store.versions([old, new, "another", IDS[2], "none"]) == {old: 2, new: 2, "another": 1, IDS[2]: 1}
    assert store.payloads([old, new, "another"]) == {old: {"a": 1}, new: {}, "another": {"b": [1]}}
    (hits,) = gallery.search(OTHER[:1], 1, SECOND.fingerprint)
    assert (hits[0].id, hits[0].generation) == (old, "second")
    # What was kept of the former content is gone with it: a rollback brings no vector of another text back.
    gallery.rollback("first", leave_new=True)
    assert store.counts() == {1: 59, 2: 2}
    (items,) = store.fetch([new])
    np.testing.assert_allclose(items.vectors, OLD_VECTORS[9:10], atol=1e-6)
    assert gallery.verify() == []


def test_removed_items_are_gone_with_all_they_had(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target="50%", order="oldest")
    gallery.search(NEW_VECTORS[:3], 5, SECOND.fingerprint, remember=True)
    gone = [IDS[0], IDS[1], IDS[59]]
    assert gallery.delete([*gone, "never there"]) == 3
    assert gallery.delete(gone) == 0
    assert store.counts() == {1: 29, 2: 28}
    assert not set(gone) & set(dict(store.hits()))
    assert store.payloads(gone) == {}
    (hits,) = gallery.search(NEW_VECTORS[:1], COUNT, SECOND.fingerprint)
    assert {hit.id for hit in hits} == set(IDS) - set(gone)
    assert gallery.set_payloads({IDS[2]: {"label": 99}, gone[0]: {}}) == 1
    assert store.versions([IDS[2], *gone]) == {IDS[2]: 2}
    gallery.upsert([gone[0]], OLD_VECTORS[:1], fingerprint=FIRST.fingerprint)
    assert store.versions([gone[0]])[gone[0]] > 1  # not taken for the one that was removed
    assert set(store.sample(COUNT, 0)) == set(IDS) - set(gone[1:])
    gallery.rollback("first")
    assert store.counts() == {1: 58}
    assert gallery.verify() == []


def test_a_replacement_leaves_alone_what_is_not_as_it_was(store: Store) -> None:
    gallery = upgraded(store)
    gallery.set_payloads({IDS[1]: {}})
    gallery.delete([IDS[2]])
    gallery.upsert([IDS[3]], OTHER[3:4], fingerprint=SECOND.fingerprint)
    batch = ItemBatch(IDS[:5], 2, NEW_VECTORS[:5], [], [1, 1, 1, 1, 1])
    assert sorted(store.replace(batch, keep_old=True)) == sorted(IDS[1:4])
    assert sorted(store.replace(batch, keep_old=True)) == sorted(IDS[:5])
    assert store.counts() == {1: COUNT - 4, 2: 3}
    assert store.versions(IDS[:5]) == {IDS[0]: 1, IDS[1]: 2, IDS[3]: 2, IDS[4]: 1}
    np.testing.assert_allclose(store.fetch([IDS[3]])[0].vectors, OTHER[3:4], atol=1e-6)


def test_items_that_vanish_change_and_come_amid_a_backfill(store: Store) -> None:
    gallery, asked = upgraded(store), list[list[str]]()
    source = dict(zip(IDS, NEW_VECTORS, strict=True))

    def slow(ids: list[str]) -> np.ndarray:
        made = np.stack([source[name] for name in ids])
        asked.append(ids)
        if len(asked) == 1:  # after the texts were read, before the vectors are written
            gallery.delete([ids[0], IDS[59]])  # one of this batch, one whose turn comes later
            source[ids[1]] = OTHER[0]
            gallery.upsert([ids[1]], OLD_VECTORS[:1], fingerprint=FIRST.fingerprint)
            source["late"] = OTHER[1]
            gallery.upsert(["late"], OLD_VECTORS[1:2], fingerprint=FIRST.fingerprint)
        return made

    job = gallery.backfill(slow, fingerprint=SECOND.fingerprint, batch_size=10, order="oldest")
    assert (job.replaced, job.missing, job.failed, job.finished) == (COUNT - 2 + 1, 2, 0, True)
    assert store.counts() == {2: COUNT - 1}
    for name, wanted in ((IDS[1], OTHER[0]), ("late", OTHER[1]), (IDS[4], NEW_VECTORS[4])):
        np.testing.assert_allclose(store.fetch([name])[0].vectors[0], wanted, atol=1e-6)
    assert gallery.verify() == []
    assert gallery.backfill(slow, fingerprint=SECOND.fingerprint).items == 0


def test_an_item_that_never_stands_still_is_left_old_and_named(store: Store) -> None:
    gallery = upgraded(store)

    def busy(ids: list[str]) -> Embedded:
        gallery.set_payloads({IDS[0]: {"seen": 1}})
        return embed(ids)

    job = gallery.backfill(busy, fingerprint=SECOND.fingerprint)
    assert job.errors == {IDS[0]: "was changed again and again while it was embedded"}
    assert store.counts() == {1: 1, 2: COUNT - 1}


def test_a_target_is_one_of_the_whole(store: Store) -> None:
    gallery, plans = upgraded(store), list[Any]()

    def fill(target: Any) -> int:
        job = gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=target, announce=plans.append)
        return job.replaced

    targets = ("50%", "50%", "25%", 30, "30", 40, "100%", "all")
    assert [fill(target) for target in targets] == [
        30,
        0,
        0,
        0,
        0,
        10,
        20,
        0,
    ]
    assert [(plan.total, plan.new) for plan in plans[:3]] == [(60, 0), (60, 30), (60, 30)]
    assert plans[0].batches == 1


@pytest.mark.parametrize("bad", ["nan", "double", "far double", "payload", "id"])
def test_a_creation_that_is_refused_leaves_nothing(store: Store, bad: str) -> None:
    rows, names, payloads = OLD_VECTORS.copy(), list(IDS), list[Any](PAYLOADS)
    if bad == "nan":
        rows[40] = np.nan
    if bad.endswith("double"):
        names[55 if bad == "far double" else 30] = names[29 if bad == "double" else 2]
    if bad == "payload":
        payloads[44] = {"when": {1, 2}}
    if bad == "id":
        names[33] = "a\0b"
    parts = [(names[at : at + 25], rows[at : at + 25], payloads[at : at + 25]) for at in (0, 25, 50)]
    with pytest.raises(GalleryError, match="row 15|comes twice|already exists|expected JSON values|not valid UTF-8"):
        Gallery.create(store, FIRST, parts)
    with pytest.raises(GalleryError, match="no gallery there"):
        Gallery.open(store)
    assert fresh(store).count() == COUNT


def test_a_creation_that_was_killed_is_begun_again_and_a_gallery_only_replaced_when_asked(store: Store) -> None:
    class PowerError(BaseException): ...

    def killed() -> Any:
        yield IDS[:25], OLD_VECTORS[:25], PAYLOADS[:25]
        raise PowerError

    with pytest.raises(PowerError):
        Gallery.create(store, FIRST, killed())
    with pytest.raises(GalleryError, match="no gallery there, or its creation was interrupted"):
        Gallery.open(store)
    assert fresh(store).count() == COUNT
    with pytest.raises(GalleryError, match="--replace"):
        fresh(store)
    gallery = Gallery.create(store, SECOND, [(IDS[:5], NEW_VECTORS[:5], PAYLOADS[:5])], replace=True)
    assert (gallery.count(), store.counts(), gallery.verify()) == (5, {1: 5}, [])
    store.drop()
    with pytest.raises(GalleryError, match="no gallery there"):
        Gallery.open(store)


def test_a_creation_that_was_killed_before_its_first_item_is_begun_again(store: Store) -> None:
    store.create()
    with pytest.raises(GalleryError, match="no gallery there, or its creation was interrupted"):
        Gallery.open(store)
    assert fresh(store).count() == COUNT
    assert store.read("creating") is None
    with pytest.raises(GalleryError, match="--replace"):
        fresh(store)


def test_a_creation_that_cannot_take_the_lock_removes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have begun it again meanwhile, and what is there is that one's."""

    def taken() -> Any:
        raise GalleryError("gone")

    with monkeypatch.context() as patch, pytest.raises(GalleryError, match="gone"):
        patch.setattr(store, "lock", taken)
        fresh(store)
    assert store.read("creating") is not None
    assert fresh(store).count() == COUNT


def test_unknown_models_and_bad_items_are_refused_before_anything_is_written(store: Store) -> None:
    gallery = upgraded(store)
    before = held(gallery)
    for ids, rows, payloads, model, message in (
        (["a"], OLD_VECTORS[:1], None, "f" * 64, "is not of this gallery's lineage"),
        (["a"], NEW_VECTORS[:1], None, FIRST.fingerprint, r"expected floats \[n, 6\]"),
        (["a", "a"], OLD_VECTORS[:2], None, FIRST.fingerprint, "comes twice"),
        (["a"], np.full((1, OLD), np.nan), None, FIRST.fingerprint, "row 0 holds a value that is not finite"),
        (["a"], OLD_VECTORS[:2], None, FIRST.fingerprint, "an id and a payload for each of 2 vectors"),
        (["a", "b"], OLD_VECTORS[:2], [{}, {"x": float("inf")}], FIRST.fingerprint, "expected JSON values"),
        ([""], OLD_VECTORS[:1], None, FIRST.fingerprint, "at least one character"),
        (["a"], OLD_VECTORS[:1], [{"x": 2**63}], FIRST.fingerprint, "too large"),
    ):
        with pytest.raises(GalleryError, match=message):
            gallery.upsert(ids, rows, payloads, fingerprint=model)
    assert held(gallery) == before
    assert gallery.count() == COUNT


def test_an_upsert_while_its_model_is_forgotten_leaves_no_item_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, real = upgraded(store), store.restore
    restores: list[int] = []

    def restore(generation: int) -> int:
        missing = real(generation)
        if not restores:
            gallery.upsert(IDS[:1], NEW_VECTORS[:1], fingerprint=SECOND.fingerprint)
        restores.append(generation)
        return missing

    with monkeypatch.context() as patch, pytest.raises(GalleryError, match="items of second were added meanwhile"):
        patch.setattr(store, "restore", restore)
        gallery.rollback("first", forget=True)
    assert store.counts() == {1: COUNT - 1, 2: 1}
    assert len(gallery.search(NEW_VECTORS[:1], COUNT, SECOND.fingerprint)[0]) == COUNT
    gallery.delete(IDS[:1])
    insert, late = store.upsert, [IDS[0]]

    def upsert(items: ItemBatch) -> None:
        if late:
            late.clear()
            gallery.rollback("first", forget=True)
            store.add_generation(2, NEW)  # some stores would refuse the write without it, as they should
        insert(items)

    monkeypatch.setattr(store, "upsert", upsert)
    with pytest.raises(GalleryError, match="second was forgotten while these items were written, so they were removed"):
        gallery.upsert(IDS[:1], NEW_VECTORS[:1], fingerprint=SECOND.fingerprint)
    assert store.counts() == {1: COUNT - 1}
    assert gallery.verify() == []
