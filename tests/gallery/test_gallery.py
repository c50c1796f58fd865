"""One congruence suite for every store: the same calls, the same answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import (
    COUNT,
    FIRST,
    IDS,
    LAST,
    NEW,
    NEW_VECTORS,
    OLD,
    OLD_VECTORS,
    PAYLOADS,
    SECOND,
    THIRD,
    answers,
    assert_same,
    embed,
    fresh,
    padded,
    unit,
    upgraded,
    vectors,
)

from nobackfill.errors import GalleryError
from nobackfill.evaluation.rule_choice import RuleChoice
from nobackfill.evaluation.scoring_rules import ScoringRule
from nobackfill.gallery import Gallery, Generation, ItemBatch, Store
from nobackfill.gallery.vectors import vectors_of


def test_a_mixed_search_is_that_of_the_padded_index(store: Store) -> None:
    gallery = upgraded(store)
    queries = vectors(NEW, 2, 5)
    scale = gallery.manifest.generations[1].scales[FIRST.fingerprint]
    assert scale == pytest.approx(np.linalg.norm(NEW_VECTORS[:, :OLD], axis=1).mean())
    for exchanged in (set(), set(IDS[5:33]), set(IDS)):
        if exchanged:
            items = [name for name in IDS if name in exchanged]
            for generation in (1,):
                known, _ = vectors_of(store, items, generation)
                store.replace(ItemBatch(known, 2, embed(known).checked(known, NEW)[1], []), keep_old=False)
        assert_same(answers(gallery, queries, SECOND), queries @ padded(exchanged).T)
        # In words: cosine on the prefix, times the prefix's norm, for old items; cosine on everything for new ones.
        old = np.linalg.norm(queries[:, :OLD], axis=1, keepdims=True) * (unit(queries[:, :OLD]) @ OLD_VECTORS.T)
        by_hand = np.where([name in exchanged for name in IDS], queries @ NEW_VECTORS.T, old)
        assert_same(answers(gallery, queries, SECOND), by_hand)
        assert store.counts() == {
            number: count for number, count in ((1, COUNT - len(exchanged)), (2, len(exchanged))) if count
        }
        # Old queries go on: they meet a new item's first values.
        first = vectors(OLD, 3, 4)
        by_old = np.where(
            [name in exchanged for name in IDS], first @ NEW_VECTORS[:, :OLD].T / scale, first @ OLD_VECTORS.T
        )
        assert_same(answers(gallery, first, FIRST), by_old)


def test_items_exchanged_just_before_the_store_is_searched_are_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, queries, search = upgraded(store), vectors(NEW, 2, 3), store.search
    for upto in (10, COUNT):  # the first of the new generation, then the last of the old one

        def late(wanted: Any, k: int, where: Any, upto: int = upto) -> Any:
            store.replace(ItemBatch(IDS[:upto], 2, NEW_VECTORS[:upto], []), keep_old=False)
            return search(wanted, k, where)

        monkeypatch.setattr(store, "search", late)
        assert_same(answers(gallery, queries, SECOND), queries @ padded(set(IDS[:upto])).T)
    assert search({1: OLD_VECTORS[:1]}, 3)[1].ids == [[]]


def test_the_best_k_come_with_generation_and_payload(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=20, batch_size=7)
    (hits,) = gallery.search(NEW_VECTORS[4:5], 9, SECOND.fingerprint)
    assert len(hits) == 9
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    held = {name: items.generation for items in store.fetch(IDS) for name in items.ids}
    for hit in hits:
        assert hit.payload == PAYLOADS[IDS.index(hit.id)]
        assert hit.generation == ("first", "second")[held[hit.id] - 1]
    together, (alone,) = (gallery.search(NEW_VECTORS[some], 2, SECOND.fingerprint) for some in (slice(3), slice(2, 3)))
    assert [replace(hit, score=0) for hit in together[2]] == [replace(hit, score=0) for hit in alone]
    assert [hit.score for hit in together[2]] == pytest.approx([hit.score for hit in alone], abs=1e-6)  # its last bit


def test_three_generations(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=20, batch_size=20, order="oldest")
    newest = vectors(THIRD, 4)
    gallery.add_generation(LAST, newest)
    gallery.backfill(
        lambda ids: newest[[IDS.index(name) for name in ids]], fingerprint=LAST.fingerprint, target=30, order="oldest"
    )
    assert store.counts() == {1: 10, 2: 20, 3: 30}
    assert gallery.verify() == []
    queries = vectors(THIRD, 5, 3)
    scores = np.concatenate(
        [
            queries[:, :OLD] @ OLD_VECTORS.T,
            queries[:, :NEW] @ NEW_VECTORS.T,
            queries @ newest.T,
        ]
    ).reshape(3, 3, COUNT)
    held = {name: items.generation for items in store.fetch(IDS) for name in items.ids}
    wanted = np.stack([scores[held[name] - 1, :, place] for place, name in enumerate(IDS)], axis=1)
    assert_same(answers(gallery, queries, LAST), wanted)


def test_late_items_that_the_newest_model_does_not_compare_with_wait_for_the_backfill(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, newest = upgraded(store), vectors(THIRD, 4)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    gallery.add_generation(LAST.model_copy(update={"compatible_with": (SECOND.fingerprint,)}), newest)
    for action in (
        lambda: gallery.upsert(["late"], OLD_VECTORS[:1], fingerprint=FIRST.fingerprint),
        lambda: gallery.search(OLD_VECTORS[:1], 3, FIRST.fingerprint),
    ):
        with pytest.raises(
            GalleryError, match="third does not compare with vectors of first; first is no longer served: embed with th"
        ):
            action()
    store.upsert(ItemBatch(["late"], 1, OLD_VECTORS[:1], [{}]))  # as an application adds one to its own table
    with monkeypatch.context() as patch:
        patch.setattr(store, "counts", None)  # a scan of an adopted table: no search can pay for it
        for queries, generation in ((NEW_VECTORS, SECOND), (newest, LAST)):
            (hits,) = gallery.search(queries[:1], COUNT + 1, generation.fingerprint)
            assert {hit.id for hit in hits} == set(IDS)
    source = dict(zip([*IDS, "late"], [*newest, newest[0]], strict=True))
    gallery.backfill(lambda ids: np.stack([source[name] for name in ids]), fingerprint=LAST.fingerprint)
    assert store.counts() == {3: COUNT + 1}
    gallery.rollback("second", forget=True)
    gallery.upsert(["later"], OLD_VECTORS[:1], fingerprint=FIRST.fingerprint)  # the newest model compares with it again
    assert store.counts() == {1: 2, 2: COUNT}
    assert len(gallery.search(NEW_VECTORS[:1], COUNT + 2, SECOND.fingerprint)[0]) == COUNT + 2


def test_a_rollback_does_not_serve_again_what_no_item_is_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, newest = upgraded(store), vectors(THIRD, 4)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    gallery.compact()  # else the rollback could bring back items of the first
    gallery.add_generation(LAST.model_copy(update={"compatible_with": (SECOND.fingerprint,)}), newest)
    gallery.backfill(lambda ids: newest[[IDS.index(name) for name in ids]], fingerprint=LAST.fingerprint)
    gallery.rollback("second")
    assert (store.counts(), gallery.status().serves_from) == ({2: COUNT}, 2)
    store.upsert(ItemBatch(["late"], 1, OLD_VECTORS[:1], [{}]))  # as an application adds one to its own table
    monkeypatch.setattr(store, "counts", None)  # a scan of an adopted table: no search can pay for it
    assert len(gallery.search(newest[:1], COUNT + 1, LAST.fingerprint)[0]) == COUNT


def test_a_model_that_was_skipped_adds_no_items(store: Store) -> None:
    gallery = upgraded(store)  # and never backfilled: the next model is trained on the first
    gallery.add_generation(LAST.model_copy(update={"compatible_with": (FIRST.fingerprint,)}), vectors(THIRD, 4))
    with pytest.raises(GalleryError, match="third does not compare with vectors of second: embed with third"):
        gallery.upsert(["late"], NEW_VECTORS[:1], fingerprint=SECOND.fingerprint)
    gallery.upsert(["late"], OLD_VECTORS[:1], fingerprint=FIRST.fingerprint)
    assert len(gallery.search(vectors(THIRD, 5, 1), COUNT + 1, LAST.fingerprint)[0]) == COUNT + 1


def test_scores_compared_by_a_rule(store: Store) -> None:
    gallery = fresh(store)
    rule = ScoringRule("calibrated", 0.5, 0.25)
    gallery.add_generation(SECOND, NEW_VECTORS, rules={1: RuleChoice(rule, {}, None)})
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=20, order="oldest")
    queries, first = vectors(NEW, 2, 5), vectors(OLD, 3, 4)
    new = [IDS.index(name) < 20 for name in IDS]
    old_scores = 0.5 * queries[:, :OLD] @ OLD_VECTORS.T + 0.25
    assert_same(answers(gallery, queries, SECOND), np.where(new, queries @ NEW_VECTORS.T, old_scores))
    scale = gallery.manifest.generations[1].scales[FIRST.fingerprint]
    by_old = np.where(new, first @ NEW_VECTORS[:, :OLD].T / scale, first @ OLD_VECTORS.T)
    assert_same(answers(gallery, first, FIRST), by_old)  # the rule is for newer queries


def test_a_newer_generation_holds_the_older_spaces(store: Store) -> None:
    gallery = fresh(store)
    small = SECOND.model_copy(update={"dim": OLD - 1})
    with pytest.raises(GalleryError, match=f"second has {OLD - 1} values, fewer than the {OLD} of first"):
        gallery.add_generation(small, vectors(OLD - 1, 1))
    with pytest.raises(GalleryError, match=f"second has {OLD - 1} values, fewer than the {OLD} of first"):
        gallery.upgrade(small, lambda ids: vectors(OLD - 1, 1)[[IDS.index(name) for name in ids]])
    empty = NEW_VECTORS.copy()
    empty[:, :OLD] = 0
    with pytest.raises(GalleryError, match=f"its first {OLD} values, which should compare with first, are all zero"):
        gallery.add_generation(SECOND, empty)
    assert len(Gallery.open(store).manifest.generations) == 1


def test_strangers_are_refused(store: Store) -> None:
    gallery = upgraded(store)
    with pytest.raises(GalleryError, match="ffffffffffff… is not of this gallery's lineage \\(first, second\\)"):
        gallery.search(NEW_VECTORS, 3, "f" * 64)
    with pytest.raises(GalleryError, match=r"expected floats \[n, 9\], found float32 \[60, 6\]"):
        gallery.search(OLD_VECTORS, 3, SECOND.fingerprint)
    bad = NEW_VECTORS.copy()
    bad[3] = np.nan
    with pytest.raises(GalleryError, match="queries: row 3 is zero|queries: row 3 holds a value"):
        gallery.search(bad, 3, SECOND.fingerprint)
    stranger = Generation(name="stranger", dim=NEW, fingerprint="d" * 64)
    with pytest.raises(
        GalleryError, match="stranger was not trained to be compatible with first, of which the gallery holds 60"
    ):
        gallery.add_generation(stranger, NEW_VECTORS)
    with pytest.raises(GalleryError, match="sample of second: it has no vectors"):
        unmeasured = Generation(name="second", dim=NEW, fingerprint="e" * 64, compatible_with=("a" * 64,))
        gallery.add_generation(unmeasured, NEW_VECTORS[:0])
    with pytest.raises(GalleryError, match="second is already a generation of this gallery"):
        gallery.add_generation(SECOND, NEW_VECTORS)
    with pytest.raises(GalleryError, match="a backfill needs the newest generation, second"):
        gallery.backfill(embed, fingerprint=FIRST.fingerprint)
    with pytest.raises(GalleryError, match="exists"):
        fresh(store)
    with pytest.raises(GalleryError, match="already exists; ids are unique"):
        store.insert(ItemBatch([IDS[3]], 1, OLD_VECTORS[:1], [{}]))
    assert store.replace(ItemBatch(["unknown"], 2, NEW_VECTORS[:1], []), keep_old=False) == ["unknown"]
    assert store.counts() == {1: 60}
    assert gallery.verify() == []


def test_ids_and_embedders_that_no_store_could_take(store: Store) -> None:
    with pytest.raises(GalleryError, match=r"id 'caf\\udce9.png': not valid UTF-8"):
        Gallery.create(store, FIRST, [(["caf\udce9.png"], OLD_VECTORS[:1], [{}])])


def test_documents_of_any_name(store: Store) -> None:
    fresh(store)
    for name in ("../../outside", "a/b", "plan-000001"):
        store.write(name, name.encode())
        assert store.read(name) == name.encode()
        store.write(name, None)
        assert store.read(name) is None
    store.write("big", b"x" * 3_000_000)
    assert len(store.read("big") or b"") == 3_000_000
