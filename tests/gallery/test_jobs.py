"""Backfills that are killed, and searches beside them."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery import jobs
from tests.gallery.galleries import all_ids
from tests.gallery.jobs import COUNT, NEW, OLD

from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, Generation, backfill, open_store
from nobackfill.gallery.vectors import vectors_of

IDS = [str(number) for number in range(COUNT)]
FIRST = Generation(name="first", dim=OLD, fingerprint="a")
SECOND = Generation(name="second", dim=NEW, fingerprint="b", compatible_with=("a",))


def make(url: str) -> Gallery:
    gallery = Gallery.create(open_store(url), FIRST, [(IDS, jobs.vectors(OLD), [{} for _ in IDS])])
    gallery.add_generation(SECOND, jobs.vectors(NEW))
    return gallery


def contents(gallery: Gallery) -> bytes:
    known, vectors = vectors_of(gallery.store, IDS, 2)
    assert known == IDS  # each once, none lost
    assert gallery.store.counts() == {2: COUNT}
    assert gallery.verify() == []
    return vectors.tobytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a backfill that nothing disturbs leaves."""
    gallery = make(f"faiss:{tmp_path_factory.mktemp('straight') / 'store'}")
    process = jobs.start(gallery.store.url)
    process.join()
    assert process.exitcode == 0
    return contents(gallery)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, straight: bytes) -> None:
    gallery = make(f"faiss:{tmp_path / 'store'}")
    moments, kills = random.Random(1), 0
    while True:
        process = jobs.start(gallery.store.url)
        process.join(moments.uniform(0.1, 0.5) * 1.1**kills)
        if not process.is_alive():
            break
        process.kill()
        process.join()
        kills += 1
        counts = gallery.store.counts()
        assert sum(counts.values()) == COUNT
        assert gallery.verify() == []
    assert process.exitcode == 0
    assert kills > 0
    assert contents(gallery) == straight


MOMENTS = [(kind, writes) for kind in ("faiss", "postgresql") for writes in (1, 3, 4, 23, 42, 43, 44, 45)]


@pytest.mark.parametrize(("kind", "writes"), [*MOMENTS, ("qdrant", 23)])
def test_killed_after_every_kind_of_write(
    tmp_path: Path, straight: bytes, writes: int, kind: str, request: pytest.FixtureRequest
) -> None:
    # 20 batches in one piece: its progress, itself, the journal; then exchange and progress in turn; at the end the
    # journal and the clean-up.
    url = f"{kind}:{tmp_path / 'store'}"
    if kind == "qdrant":
        pytest.importorskip("qdrant_client")
    if kind == "postgresql":
        url = f"{request.getfixturevalue('server')}#killed_{writes}"
    gallery = make(url)
    gallery.store.close()  # Qdrant's local mode serves one process
    process = jobs.start(url, writes)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process = jobs.start(url)
    process.join()
    assert process.exitcode == 0
    gallery = Gallery.open(open_store(url))
    assert contents(gallery) == straight
    gallery.store.close()


@pytest.mark.parametrize("kind", ["faiss", "postgresql"])
def test_searches_during_a_backfill_see_each_item_once(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = f"faiss:{tmp_path / 'store'}" if kind == "faiss" else f"{request.getfixturevalue('server')}#searched"
    gallery = make(url)
    reader, new = Gallery.open(open_store(url)), jobs.vectors(NEW)
    faults: list[Any] = []
    seen: set[tuple[tuple[int, int], ...]] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            try:
                (hits,) = reader.search(new[:1], COUNT, "b")
                seen.add(tuple(reader.store.counts().items()))
                if sorted(hit.id for hit in hits) != sorted(IDS):
                    faults.append(len(hits))
            except Exception as error:
                faults.append(error)

    def embed(ids: list[str]) -> Embedded:
        time.sleep(0.02)
        return Embedded(ids, new[[int(name) for name in ids]], {})

    thread = threading.Thread(target=look)
    thread.start()
    try:
        gallery.backfill(embed, fingerprint="b", batch_size=100)
    finally:
        ended.set()
        thread.join()
    assert faults == []
    assert len(seen) > 2  # it did look in between
    reader.store.close()
    gallery.store.close()


def test_a_backfill_waits_for_another_verb_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make(f"faiss:{tmp_path / 'store'}")
    with gallery.store.lock():
        with (
            monkeypatch.context() as patch,
            pytest.raises(GalleryError, match="another process is changing this gallery"),
        ):
            patch.setattr(backfill, "WAIT", 0.2)
            other = Gallery.open(open_store(gallery.store.url))
            other.backfill(lambda _: 1 / 0, fingerprint="b")
        with pytest.raises(GalleryError, match="another process is changing this gallery"):
            Gallery.open(open_store(gallery.store.url)).compact()
    process = jobs.start(gallery.store.url)
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("index", ["hnsw", "ivfpq"])
def test_approximate_indexes_are_built_searched_and_filtered(tmp_path: Path, index: str) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}", index=index)
    old, new = jobs.vectors(OLD), jobs.vectors(NEW)
    gallery = Gallery.create(store, FIRST, [(IDS, old, [{} for _ in IDS])])
    gallery.add_generation(SECOND, new)
    assert list((tmp_path / "store" / "indexes").glob("*.faiss"))

    def embed(ids: list[str]) -> Embedded:
        return Embedded(ids, new[[int(name) for name in ids]], {})

    # Without compaction: the old index holds what has moved.
    gallery.backfill(embed, fingerprint="b", target="40%")
    queries = new[:40]
    held = set(all_ids(store, 2))
    exact = np.where([name in held for name in IDS], queries @ new.T, queries[:, :OLD] @ old.T)
    found = gallery.search(queries, 10, "b")
    right = 0
    for query, hits in enumerate(found):
        best = {IDS[place] for place in np.argsort(-exact[query])[:10]}
        right += len(best & {hit.id for hit in hits})
        assert len({hit.id for hit in hits}) == 10
        for hit in hits:
            assert hit.generation == ("second" if hit.id in held else "first")
    assert right / 400 > (0.95 if index == "hnsw" else 0.4)

    # The few that are still old are found as well as when all of them were: the index keeps its own settings.
    gallery.backfill(embed, fingerprint="b", target="94%")
    left, all_left, replaced = [], [], set(all_ids(store, 2))
    for query, hits in enumerate(gallery.search(queries, COUNT, "b")):
        old_ones = [hit.id for hit in hits if hit.generation == "first"][:10]
        scores = np.where([name in replaced for name in IDS], -np.inf, queries[query, :OLD] @ old.T)
        best = {IDS[place] for place in np.argsort(-scores)[:10]}
        left.append(len(best & set(old_ones)))
        all_left.append(len(old_ones))
    assert min(all_left) == 10
    assert sum(left) / 400 > (0.95 if index == "hnsw" else 0.4)
    gallery.compact()
    assert len(gallery.search(queries, 10, "b")[0]) == 10
    assert gallery.verify() == []


def test_a_damaged_index_is_named_and_one_compacted_away_is_not_missed(tmp_path: Path) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}", index="hnsw")
    gallery = Gallery.create(store, FIRST, [(IDS, jobs.vectors(OLD), [{} for _ in IDS])])
    (path,) = (tmp_path / "store" / "indexes").glob("*.faiss")
    reader = Gallery.open(open_store(f"faiss:{tmp_path / 'store'}"))
    assert reader.store.counts() == {1: COUNT}  # a state is open, its index not yet
    gallery.compact()
    assert not path.exists()
    assert len(reader.search(jobs.vectors(OLD)[:1], 3, "a")[0]) == 3
    (path,) = (tmp_path / "store" / "indexes").glob("*.faiss")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(GalleryError, match="faiss: damaged; `gallery compact` rebuilds it"):
        Gallery.open(open_store(f"faiss:{tmp_path / 'store'}")).search(jobs.vectors(OLD)[:1], 3, "a")


def test_two_that_create_at_once_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (open_store(f"faiss:{tmp_path / 'store'}") for _ in range(2))
    real = Path.iterdir

    def late(self: Path) -> Any:
        found = list(real(self)) if self.exists() else []
        if self == tmp_path / "store" and not found:
            monkeypatch.setattr(Path, "iterdir", real)
            one.create()
        return iter(found)

    (tmp_path / "store").mkdir()
    monkeypatch.setattr(Path, "iterdir", late)
    with pytest.raises(GalleryError, match="another process is creating a gallery there"):
        other.create()
    assert one.counts() == {}


def test_a_damaged_document_is_named(tmp_path: Path) -> None:
    gallery = make(f"faiss:{tmp_path / 'store'}")
    gallery.store.write("manifest", b'{"format": 1, "generations": 3}')
    with pytest.raises(GalleryError, match="its manifest is damaged"):
        Gallery.open(gallery.store)
