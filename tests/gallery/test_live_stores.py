"""Stores that are open to writes against a dict that says what must be true."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.gallery.live import DIMS, NAMES, Model, check, one_write, unit

from nobackfill.errors import GalleryError
from nobackfill.gallery import open_store
from nobackfill.gallery.filters import parse_filter
from nobackfill.gallery.stores.base import ItemBatch, Store

MODULES = {"lance": "lancedb", "milvus": "milvus_lite"}
Opener = Callable[[], Store]


@pytest.fixture(params=["lance", "milvus", "milvus+http"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """A server is tried if its address is in NOBACKFILL_TEST_MILVUS, such as milvus+http://localhost:19530."""
    server = os.environ.get("NOBACKFILL_TEST_MILVUS")
    if request.param == "milvus+http":
        if not server:
            pytest.skip("no Milvus server in NOBACKFILL_TEST_MILVUS")
        url = f"{server}#t{uuid.uuid4().hex}"
    else:
        pytest.importorskip(MODULES[request.param])
        url = f"{request.param}:{tmp_path / 'store.db'}"
    return lambda: open_store(url)


def made(opener: Opener) -> Store:
    store = opener()
    store.create()
    for number, dim in DIMS.items():
        store.add_generation(number, dim)
    return store


@pytest.mark.parametrize("seed", range(2))
def test_random_writes_against_a_dict(opener: Opener, seed: int) -> None:
    store, model, rng = made(opener), Model(), np.random.default_rng(seed)
    for step in range(30):
        one_write(store, model, rng)
        if step % 10 == 9:
            check(store, model, rng)
    check(opener(), model, rng)
    store.close()


def test_insert_refuses_what_is_there_and_add_generation_may_come_again(opener: Opener) -> None:
    store, rng = made(opener), np.random.default_rng(0)
    assert store.counts() == {}
    assert store.sample(3, 0) == []
    assert list(store.scan(3)) == []
    store.insert(ItemBatch(NAMES[:9], 2, unit(rng, 9, DIMS[2]), [{}] * 9))
    for names in (NAMES[8:10], [NAMES[20], NAMES[20]]):
        with pytest.raises(GalleryError, match="already exists; ids are unique"):
            store.insert(ItemBatch(names, 2, unit(rng, 2, DIMS[2]), [{}] * 2))
    store.add_generation(2, DIMS[2])
    store.add_generation(3, 20)  # the one before was rolled back
    assert store.counts() == {2: 9}
    assert store.replace(ItemBatch(NAMES[:4], 3, unit(rng, 4, 20), []), keep_old=True) == []
    assert store.counts() == {2: 5, 3: 4}
    with pytest.raises(GalleryError, match="exists"):
        opener().create()
    store.close()


def test_hits_go_with_their_item(opener: Opener) -> None:
    store, rng = made(opener), np.random.default_rng(0)
    store.insert(ItemBatch(NAMES[:3], 1, unit(rng, 3, DIMS[1]), [{}] * 3))
    store.count_hits({NAMES[0]: 2, NAMES[1]: 5})
    assert store.delete([NAMES[1], "unknown"]) == 1
    assert list(store.hits()) == [(NAMES[0], 2)]
    store.close()


def test_named_locks(opener: Opener) -> None:
    store, other = made(opener), opener()
    with store.lock(), other.lock("backfill-000001") as check_lock, store.lock("backfill-000002"):
        check_lock()
        with pytest.raises(GalleryError, match="another process is changing this gallery"), other.lock():
            pass
        store.upsert(ItemBatch(NAMES[:1], 1, unit(np.random.default_rng(0), 1, DIMS[1]), [{}]))  # needs none
    with other.lock():
        pass
    store.close()


def test_drop_leaves_nothing_and_a_new_gallery_can_be_made(opener: Opener) -> None:
    store = made(opener)
    store.write("manifest", b"x")
    store.upsert(ItemBatch(NAMES[:1], 1, unit(np.random.default_rng(0), 1, DIMS[1]), [{}]))
    store.count_hits({NAMES[0]: 1})
    store.drop()
    assert store.read("manifest") is None
    with pytest.raises(GalleryError, match="no gallery there"):
        store.counts()
    assert made(opener).counts() == {}
    assert list(opener().hits()) == []
    store.close()


def test_threads_share_one_store(opener: Opener) -> None:
    store, rng = made(opener), np.random.default_rng(0)
    vectors = unit(rng, 16, DIMS[1])

    def work(part: int) -> int:
        for place in range(part, 16, 8):
            store.upsert(ItemBatch([NAMES[place]], 1, vectors[place : place + 1], [{"n": place}]))
        (found,) = store.search({1: vectors[part : part + 1]}, 1)[1].ids
        assert found == [NAMES[part]]
        return sum(store.counts(parse_filter({"n": {"in": list(range(part, 16, 8))}})).values())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [2] * 8
    assert store.counts() == {1: 16}
    store.close()


WRITING = """
import sys
import numpy as np
from nobackfill.gallery import open_store
from nobackfill.gallery.stores.base import ItemBatch
store, who = open_store(sys.argv[1]), sys.argv[2]
vector = np.eye(1, 6, dtype=np.float32)
for number in range(5):
    store.upsert(ItemBatch([f"{who}-{number}", "shared"], 1, np.repeat(vector, 2, 0), [{}, {}]))
"""


def test_processes_write_at_once_and_lose_nothing(opener: Opener, request: pytest.FixtureRequest) -> None:
    store = made(opener)
    if store.url.startswith("milvus:"):
        pytest.skip("milvus-lite serves one process")
    command = [sys.executable, "-c", WRITING, store.url]
    running = [subprocess.Popen([*command, str(who)]) for who in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert store.counts() == {1: 16}
    assert store.versions(["shared"]) == {"shared": 15}
    store.close()
