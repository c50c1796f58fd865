"""One congruence suite for every store: the same calls, the same answers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, Generation, backfill, open_store
from nobackfill.gallery.backfill import read_job
from nobackfill.gallery.gallery import vectors_of
from nobackfill.gallery.store import Items, Store, UnreachableError, without_credentials

OLD, NEW, THIRD = 6, 9, 12
COUNT = 60


def unit(vectors: np.ndarray) -> np.ndarray:
    rows: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def vectors(dim: int, seed: int, count: int = COUNT) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dim)))


IDS = [f"photo/{number} ☃'\"; drop table x" for number in range(COUNT)]
PAYLOADS: list[dict[str, Any]] = [{"label": number % 7, "class": f"c<{number % 7}>"} for number in range(COUNT)]
OLD_VECTORS, NEW_VECTORS = vectors(OLD, 0), vectors(NEW, 1)
FIRST = Generation(name="first", dim=OLD, fingerprint="a" * 64)
SECOND = Generation(name="second", dim=NEW, fingerprint="b" * 64, answers=("a" * 64,))
LAST = Generation(name="third", dim=THIRD, fingerprint="c" * 64, answers=("b" * 64, "a" * 64))


def table_name() -> str:
    return f'a "table" {uuid.uuid4().hex}'  # a name that would end a careless statement


@pytest.fixture(params=["faiss", "postgresql", "qdrant"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"faiss:{tmp_path / 'store'}")
    if request.param == "postgresql":
        made = open_store(f"{request.getfixturevalue('server')}#{table_name()}")
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client")
        made = open_store(f"qdrant:{tmp_path / 'store'}")
    yield made
    made.close()


def fresh(store: Store, count: int = COUNT) -> Gallery:
    batches: list[tuple[list[str], Any, list[Any]]] = [
        (IDS[start : start + 25], 3.0 * OLD_VECTORS[start : start + 25], list(PAYLOADS[start : start + 25]))
        for start in range(0, count, 25)
    ]
    return Gallery.create(store, FIRST, batches, source="digits")


def upgraded(store: Store) -> Gallery:
    gallery = fresh(store)
    gallery.upgrade(SECOND, NEW_VECTORS)
    return gallery


def embed(ids: list[str]) -> Embedded:
    return Embedded(ids, 2.0 * NEW_VECTORS[[IDS.index(name) for name in ids]], {})


def answers(
    gallery: Gallery, queries: np.ndarray, generation: Generation, k: int = COUNT
) -> list[list[tuple[str, float]]]:
    found = gallery.search(queries, k, generation.fingerprint)
    return [[(hit.id, hit.score) for hit in line] for line in found]


def padded(new: set[str]) -> np.ndarray:
    """One index of the newest size: new items at unit norm, old ones as [φ ; 0]."""
    rows = np.zeros((COUNT, NEW), np.float32)
    rows[:, :OLD] = OLD_VECTORS
    for place, name in enumerate(IDS):
        if name in new:
            rows[place] = NEW_VECTORS[place]
    return rows


def assert_same(found: list[list[tuple[str, float]]], scores: np.ndarray, atol: float = 1e-6) -> None:
    for line, wanted in zip(found, scores, strict=True):
        assert {name for name, _ in line} == set(IDS)
        np.testing.assert_allclose([score for _, score in line], np.sort(wanted)[::-1], atol=atol)
        for name, score in line:
            assert score == pytest.approx(wanted[IDS.index(name)], abs=atol)


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
                made = embed(known)
                store.replace(Items(made.ids, 2, unit(made.vectors), []), keep_old=False)
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

        def late(wanted: Any, k: int, upto: int = upto) -> Any:
            store.replace(Items(IDS[:upto], 2, NEW_VECTORS[:upto], []), keep_old=False)
            return search(wanted, k)

        monkeypatch.setattr(store, "search", late)
        assert_same(answers(gallery, queries, SECOND), queries @ padded(set(IDS[:upto])).T)
    assert search({1: OLD_VECTORS[:1]}, 3)[1].ids == [[]]


def test_the_best_k_come_with_generation_and_payload(store: Store) -> None:
    gallery = upgraded(store)
    backfill(gallery, embed, SECOND.fingerprint, budget=20, batch_size=7)
    (hits,) = gallery.search(NEW_VECTORS[4:5], 9, SECOND.fingerprint)
    assert len(hits) == 9
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    held = {name: items.generation for items in store.fetch(IDS) for name in items.ids}
    for hit in hits:
        assert hit.payload == PAYLOADS[IDS.index(hit.id)]
        assert hit.generation == ("first", "second")[held[hit.id] - 1]
    assert (
        gallery.search(NEW_VECTORS[:3], 2, SECOND.fingerprint)[2]
        == gallery.search(NEW_VECTORS[2:3], 2, SECOND.fingerprint)[0]
    )


def test_backfill_exchanges_each_item_once(store: Store) -> None:
    gallery = upgraded(store)
    job = backfill(gallery, embed, SECOND.fingerprint, budget=0.25, batch_size=4)
    assert (job.items, job.exchanged, job.missing) == (15, 15, {})
    assert store.counts() == {1: 45, 2: 15}
    job = backfill(gallery, embed, SECOND.fingerprint, batch_size=16)
    assert (job.items, job.batches) == (45, 3)
    assert store.counts() == {2: 60}
    known, found = vectors_of(store, IDS, 2)
    assert known == IDS
    np.testing.assert_allclose(found, NEW_VECTORS, atol=1e-6)
    assert gallery.verify() == []
    assert backfill(gallery, embed, SECOND.fingerprint).items == 0
    assert store.ids(2) == IDS  # in the order of insertion


def test_a_killed_backfill_goes_on_as_it_was_planned(store: Store) -> None:
    gallery, asked = upgraded(store), []

    class PowerError(Exception): ...

    def fail(ids: list[str]) -> Embedded:
        asked.append(ids)
        if len(asked) == 3:
            raise PowerError
        return embed(ids)

    with pytest.raises(PowerError):
        backfill(gallery, fail, SECOND.fingerprint, budget=30, batch_size=8, seed=5)
    job = read_job(store)
    assert job
    assert (job.done, job.batches, job.finished) == (2, 4, False)
    assert store.counts() == {1: 44, 2: 16}
    # Other wishes come too late: the plan stands.
    job = backfill(gallery, fail, SECOND.fingerprint, budget=0.9, batch_size=3, order="oldest")
    assert (job.exchanged, job.batches, job.finished) == (30, 4, True)
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

    job = backfill(gallery, some, SECOND.fingerprint, batch_size=10, order="oldest")
    assert set(job.missing) == {name for place, name in enumerate(IDS) if place % 10 == 3}
    assert store.counts() == {1: 6, 2: 54}
    none = backfill(
        gallery, lambda ids: Embedded([], np.empty((0, NEW)), dict.fromkeys(ids, "gone")), SECOND.fingerprint
    )
    assert (none.exchanged, len(none.missing)) == (0, 6)


def test_orders(store: Store) -> None:
    gallery = upgraded(store)

    def planned(**wishes: Any) -> list[str]:
        class EndError(Exception): ...

        seen: list[str] = []

        def look(ids: list[str]) -> Embedded:
            seen.extend(ids)
            raise EndError

        with pytest.raises(EndError):
            backfill(gallery, look, SECOND.fingerprint, batch_size=COUNT, **wishes)
        store.write("job", None)
        return seen

    assert planned(order="oldest") == IDS
    assert planned(order="random") != IDS
    assert sorted(planned(order="random")) == sorted(IDS)
    assert planned(order="random", seed=1) != planned(order="random", seed=2)
    scores = OLD_VECTORS @ OLD_VECTORS.T
    np.fill_diagonal(scores, -1)
    assert planned(order="hardest") == [IDS[place] for place in np.argsort(scores.max(axis=1), kind="stable")]
    assert planned(order="crowded") == planned(order="hardest")[::-1]
    with pytest.raises(GalleryError, match="no searches are on record; search with --remember"):
        planned(order="queried")
    for _ in range(2):
        (hits,) = gallery.search(NEW_VECTORS[7:8], 3, SECOND.fingerprint, remember=True)
    assert set(planned(order="queried")[:3]) == {hit.id for hit in hits}
    for budget in (0.0, 1.5, -3):
        with pytest.raises(GalleryError, match="expected a share of the gallery"):
            planned(budget=budget)


def test_rollback_brings_kept_vectors_back(store: Store) -> None:
    gallery = upgraded(store)
    before = answers(gallery, vectors(OLD, 3, 4), FIRST)
    backfill(gallery, embed, SECOND.fingerprint, budget=0.5, keep_old=True)
    assert store.counts() == {1: 30, 2: 30}
    with pytest.raises(GalleryError, match="no generation 'zeroth'; there are first, second"):
        gallery.rollback("zeroth")
    gallery.rollback("first")
    assert store.counts() == {1: 60}
    assert [generation.name for generation in gallery.manifest.generations] == ["first"]
    after = answers(gallery, vectors(OLD, 3, 4), FIRST)
    assert [[name for name, _ in line] for line in before] == [[name for name, _ in line] for line in after]
    with pytest.raises(GalleryError, match="is not of this gallery's lineage"):
        gallery.search(NEW_VECTORS, 3, SECOND.fingerprint)
    gallery.upgrade(SECOND, NEW_VECTORS)
    backfill(gallery, embed, SECOND.fingerprint)
    with pytest.raises(GalleryError, match="60 items have no kept vector of first"):
        gallery.rollback("first")
    assert store.counts() == {2: 60}


def test_three_generations(store: Store) -> None:
    gallery = upgraded(store)
    backfill(gallery, embed, SECOND.fingerprint, budget=20, batch_size=20, order="oldest")
    newest = vectors(THIRD, 4)
    gallery.upgrade(LAST, newest)
    backfill(
        gallery, lambda ids: Embedded(ids, newest[[IDS.index(name) for name in ids]], {}), LAST.fingerprint, budget=30,
        order="oldest",
    )  # fmt: skip
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


def test_calibrated_scores(store: Store) -> None:
    gallery = fresh(store)
    gallery.upgrade(SECOND, NEW_VECTORS, calibration={1: (0.5, 0.25)})
    backfill(gallery, embed, SECOND.fingerprint, budget=20, order="oldest")
    queries, first = vectors(NEW, 2, 5), vectors(OLD, 3, 4)
    new = [IDS.index(name) < 20 for name in IDS]
    old_scores = 0.5 * queries[:, :OLD] @ OLD_VECTORS.T + 0.25
    assert_same(answers(gallery, queries, SECOND), np.where(new, queries @ NEW_VECTORS.T, old_scores))
    scale = gallery.manifest.generations[1].scales[FIRST.fingerprint]
    by_old = np.where(new, first @ NEW_VECTORS[:, :OLD].T / scale, first @ OLD_VECTORS.T)
    assert_same(answers(gallery, first, FIRST), by_old)  # only the newest queries are calibrated


def test_a_newer_generation_holds_the_older_spaces(store: Store) -> None:
    gallery = fresh(store)
    small = SECOND.model_copy(update={"dim": OLD - 1})
    with pytest.raises(GalleryError, match=f"second has {OLD - 1} values, fewer than the {OLD} of first"):
        gallery.upgrade(small, vectors(OLD - 1, 1))
    empty = NEW_VECTORS.copy()
    empty[:, :OLD] = 0
    with pytest.raises(GalleryError, match=f"its first {OLD} values, which should answer first, are all zero"):
        gallery.upgrade(SECOND, empty)
    assert len(Gallery.open(store).manifest.generations) == 1


def test_a_rollback_killed_half_way_leaves_no_batch_counted_as_done(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerError(Exception): ...

    gallery, asked = upgraded(store), []

    def fail(ids: list[str]) -> Embedded:
        asked.append(ids)
        if len(asked) == 3:
            raise PowerError
        return embed(ids)

    with pytest.raises(PowerError):
        backfill(gallery, fail, SECOND.fingerprint, batch_size=10, keep_old=True)
    real = store.restore

    def restore(generation: int) -> int:
        real(generation)
        raise PowerError

    with monkeypatch.context() as patch, pytest.raises(PowerError):
        patch.setattr(store, "restore", restore)
        gallery.rollback("first")
    assert store.counts() == {1: COUNT}
    assert backfill(gallery, embed, SECOND.fingerprint).exchanged == COUNT
    assert store.counts() == {2: COUNT}


def test_strangers_are_refused(store: Store) -> None:
    gallery = upgraded(store)
    with pytest.raises(GalleryError, match="ffffffffffff… is not of this gallery's lineage \\(first, second\\)"):
        gallery.search(NEW_VECTORS, 3, "f" * 64)
    with pytest.raises(GalleryError, match=r"expected floats \[n, 9\], found float32 \[60, 6\]"):
        gallery.search(OLD_VECTORS, 3, SECOND.fingerprint)
    bad = NEW_VECTORS.copy()
    bad[3] = np.nan
    with pytest.raises(GalleryError, match="queries: row 3 is zero or not finite"):
        gallery.search(bad, 3, SECOND.fingerprint)
    stranger = Generation(name="stranger", dim=NEW, fingerprint="d" * 64)
    with pytest.raises(
        GalleryError, match="stranger was not trained to be compatible with first, of which the gallery holds 60"
    ):
        gallery.upgrade(stranger, NEW_VECTORS)
    with pytest.raises(GalleryError, match="sample of second: no vector in it"):
        unmeasured = Generation(name="second", dim=NEW, fingerprint="e" * 64, answers=("a" * 64,))
        gallery.upgrade(unmeasured, NEW_VECTORS[:0])
    with pytest.raises(GalleryError, match="second is a generation of this gallery already"):
        gallery.upgrade(SECOND, NEW_VECTORS)
    with pytest.raises(GalleryError, match="a backfill goes to the newest generation, second"):
        backfill(gallery, embed, FIRST.fingerprint)
    with pytest.raises(GalleryError, match="exists"):
        fresh(store)
    with pytest.raises(GalleryError, match="is there already; ids are unique"):
        store.insert(Items([IDS[3]], 1, OLD_VECTORS[:1], [{}]))
    with pytest.raises(GalleryError, match="to replace"):
        store.replace(Items(["unknown"], 2, NEW_VECTORS[:1], []), keep_old=False)
    assert store.counts() == {1: 60}
    assert gallery.verify() == []


def test_ids_and_embedders_that_no_store_could_take(store: Store) -> None:
    with pytest.raises(GalleryError, match=r"id 'caf\\udce9.png': is not UTF-8 text"):
        Gallery.create(store, FIRST, [(["caf\udce9.png"], OLD_VECTORS[:1], [{}])])


def test_an_embedder_that_returns_other_items_is_refused(store: Store) -> None:
    gallery = upgraded(store)
    for wrong in ([IDS[0], IDS[0]], ["another"]):
        made = Embedded(wrong, NEW_VECTORS[: len(wrong)], {})
        with pytest.raises(GalleryError, match="twice, or one it was not asked for"):
            backfill(gallery, lambda _, made=made: made, SECOND.fingerprint, order="oldest")  # type: ignore[misc]
    assert store.counts() == {1: COUNT}
    assert backfill(gallery, embed, SECOND.fingerprint).exchanged == COUNT


def test_verify_beside_a_backfill_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, real = upgraded(store), store.scan

    def scan(size: int) -> Any:
        for items in real(size):
            yield items
            store.replace(Items([IDS[5]], 2, NEW_VECTORS[5:6] / np.linalg.norm(NEW_VECTORS[5]), []), keep_old=False)

    monkeypatch.setattr(store, "scan", scan)
    with pytest.raises(GalleryError, match="exchanged while it was looked through"):
        gallery.verify()


def test_verify_names_what_is_wrong(store: Store) -> None:
    gallery = upgraded(store)
    store.replace(Items([IDS[2]], 2, 2 * NEW_VECTORS[2:3], []), keep_old=False)
    assert gallery.verify() == [f"item {IDS[2]!r}: its vector has norm 2.0000, not 1"]


def test_a_store_that_does_not_answer_is_tried_again_then_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    gallery, real, calls = upgraded(store), store.replace, [0]
    monkeypatch.setattr("time.sleep", pauses.append)

    def flaky(*arguments: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] in (2, 3) or calls[0] > 5:
            raise UnreachableError("connection refused")
        real(*arguments, **options)

    monkeypatch.setattr(store, "replace", flaky)
    with pytest.raises(GalleryError, match="does not answer .connection refused.; the position is kept"):
        backfill(gallery, embed, SECOND.fingerprint, batch_size=10)
    assert pauses[:2] == [0.5, 1.0]
    assert len(pauses) == 2 + 5
    monkeypatch.setattr(store, "replace", real)
    assert store.counts() == {1: 30, 2: 30}
    backfill(gallery, embed, SECOND.fingerprint)
    assert store.counts() == {2: 60}


def test_documents_of_any_name(store: Store) -> None:
    fresh(store)
    for name in ("../../outside", "a/b", "plan-000001"):
        store.write(name, name.encode())
        assert store.read(name) == name.encode()
        store.write(name, None)
        assert store.read(name) is None
    store.write("big", b"x" * 3_000_000)
    assert len(store.read("big") or b"") == 3_000_000


def test_one_writer_at_a_time(store: Store) -> None:
    gallery = upgraded(store)
    with store.lock(), pytest.raises(GalleryError, match="another process is changing this gallery"):
        backfill(gallery, embed, SECOND.fingerprint)
    backfill(gallery, embed, SECOND.fingerprint)


def test_urls() -> None:
    assert (
        without_credentials("postgresql://me:secret@host:5432/db?password=x#items") == "postgresql://host:5432/db#items"
    )
    for password in ("pa#ss", "pa?ss", "pa/ss", "p@ss"):  # not encoded: where it ends, nobody knows
        assert without_credentials(f"postgresql://me:{password}@host/db#items") == "postgresql://…"
    assert without_credentials("postgresql://me:x@host/db?password=a@b#items") == "postgresql://…"
    assert without_credentials("qdrant+https://:key@host:6333#photos") == "qdrant+https://host:6333#photos"
    assert without_credentials("faiss:a@b") == "faiss:a@b"
    assert without_credentials("mysql:me:secret@host") == "mysql:host"
    with pytest.raises(GalleryError, match="expected faiss:DIR") as caught:
        open_store("mysql://me:secret@host/db")
    assert "secret" not in str(caught.value)
    assert json.loads(FIRST.model_dump_json())["dim"] == OLD
