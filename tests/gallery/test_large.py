"""Galleries too large to hold in memory, shared by several processes: batches, samples, hits, kept vectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
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
    OLD_VECTORS,
    SECOND,
    THIRD,
    all_ids,
    embed,
    fresh,
    table_name,
    unit,
    upgraded,
    vectors,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, Store, open_store
from nobackfill.gallery.stores.sampling import sampled

NEWEST = unit(vectors(THIRD, 4) + np.pad(NEW_VECTORS, ((0, 0), (0, THIRD - NEW))))


def embed_last(ids: list[str]) -> np.ndarray:
    rows: np.ndarray = NEWEST[[IDS.index(name) for name in ids]]
    return rows


def test_ids_come_in_batches(store: Store) -> None:
    upgraded(store)
    batches = list(store.ids(1, 25))
    assert [len(batch) for batch in batches] == [25, 25, 10]
    assert [name for batch in batches for name in batch] == IDS
    assert list(store.ids(2, 25)) == []


def test_a_sample_is_random_repeatable_and_in_order(store: Store) -> None:
    fresh(store)
    assert store.sample(COUNT, 0) == store.sample(5 * COUNT, 1) == IDS
    some = store.sample(9, 3)
    assert some == store.sample(9, 3) != store.sample(9, 4)
    assert len(set(some)) == 9
    assert some == sorted(some, key=IDS.index)


def test_a_sample_skips_free_numbers() -> None:
    def look_up(numbers: list[int]) -> dict[int, int]:
        asked.append(len(numbers))
        return {number: number for number in numbers if number % 100 == 7}

    asked: list[int] = []
    chosen = sampled(1, 100_000, 50, 0, look_up)
    assert len(chosen) == len(set(chosen)) == 50
    assert all(number % 100 == 7 for number in chosen)
    assert max(asked) < 100_000  # not all were read
    assert sampled(1, 1000, 50, 0, look_up) == list(range(7, 1000, 100))
    drawn = [number for seed in range(400) for number in sampled(0, 9, 3, seed, lambda some: {n: n for n in some})]
    assert np.bincount(drawn, minlength=10).min() > 80  # of 120 expected


def test_sampling_reads_no_list_of_ids(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = fresh(store)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("reads every item")

    for name in ("ids", "scan"):
        monkeypatch.setattr(store, name, refuse)
    gallery.upgrade(SECOND, embed, sample=10)


def test_hits_add_up(store: Store) -> None:
    gallery = fresh(store)
    assert list(store.hits()) == []
    store.count_hits({IDS[3]: 2, IDS[5]: 1})
    store.count_hits({IDS[5]: 4})
    assert list(store.hits()) == [(IDS[5], 5), (IDS[3], 2)]
    gallery.search(OLD_VECTORS[3:4], 1, FIRST.fingerprint, remember=True)
    assert dict(store.hits()) == {IDS[5]: 5, IDS[3]: 3}


COUNTING = """
import sys
from nobackfill.gallery import open_store
store = open_store(sys.argv[1])
for _ in range(100):
    store.count_hits({"one": 1, "two": 2})
"""


@pytest.mark.parametrize("kind", ["faiss", "postgresql"])
def test_three_processes_lose_no_hit(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"faiss:{tmp_path / 'store'}"
    if kind == "postgresql":
        url = f"{request.getfixturevalue('server')}#{table_name()}"
    store = open_store(url)
    fresh(store)
    command = [sys.executable, "-c", COUNTING, url]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert list(store.hits()) == [("two", 600), ("one", 300)]
    store.close()


def test_a_later_backfill_drops_no_vector_that_was_to_be_kept(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, keep_old=True)
    gallery.upgrade(LAST, embed_last)
    gallery.backfill(embed_last, fingerprint=LAST.fingerprint, target=1, keep_old=False)
    assert store.counts() == {2: COUNT - 1, 3: 1}
    assert gallery.verify() == []
    gallery.rollback("first")
    assert store.counts() == {1: COUNT}
    for items in store.fetch(IDS):
        np.testing.assert_allclose(items.vectors, OLD_VECTORS[[IDS.index(name) for name in items.ids]], atol=1e-6)
    assert all_ids(store, 1) == IDS


def test_compacting_twice_keeps_what_was_kept_and_forgets_it_when_asked_to(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=20, keep_old=True, order="oldest")
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=30, order="oldest", keep_old=False)
    store.compact(forget_kept=False)
    with pytest.raises(GalleryError, match="items without a kept vector of first or older: 10"):
        gallery.rollback("first")
    gallery.compact()
    with pytest.raises(GalleryError, match="items without a kept vector of first or older: 30"):
        gallery.rollback("first")
    assert store.counts() == {1: 30, 2: 30}
    assert gallery.verify() == []


def test_documents_of_another_format_are_refused(store: Store) -> None:
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=5)
    for name, what in (("job", "its journal"), ("manifest", "its manifest")):
        document = json.loads(store.read(name) or b"")
        assert document["format"] == 1
        store.write(name, json.dumps({**document, "format": 2}).encode())
        with pytest.raises(GalleryError, match=f"{what} has format 2; this release reads format 1: use the release"):
            Gallery.open(store).status()
        store.write(name, json.dumps({key: each for key, each in document.items() if key != "format"}).encode())
        with pytest.raises(GalleryError, match=f"{what} has format unknown"):
            Gallery.open(store).status()
        store.write(name, json.dumps(document).encode())
    assert Gallery.open(store).status().total == COUNT
