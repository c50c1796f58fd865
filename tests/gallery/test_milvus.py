"""What only Milvus can do, or do wrong: writes that were cut short, pieces of documents, names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery.live import DIMS, NAMES, unit

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, Generation, open_store
from nobackfill.gallery.adopting import plan_adoption
from nobackfill.gallery.filters import parse_filter
from nobackfill.gallery.stores.base import CREATING, ItemBatch

pytest.importorskip("milvus_lite")
RNG = np.random.default_rng(0)


class KilledError(Exception):
    """Stands for the end of the process."""


def made(tmp_path: Path) -> Any:
    store = open_store(f"milvus:{tmp_path / 'store.db'}")
    store.create()
    for number in (1, 2):
        store.add_generation(number, DIMS[number])
    store.insert(ItemBatch(NAMES[:9], 1, unit(RNG, 9, DIMS[1]), [{"n": place} for place in range(9)]))
    return store


@pytest.mark.parametrize("keep_old", [False, True])
@pytest.mark.parametrize("step", ["put", "_settle"])
def test_a_replacement_that_was_cut_short_is_finished_or_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, keep_old: bool
) -> None:
    store = made(tmp_path)
    target: Any = store._connection if step == "put" else store._rows
    real = getattr(target, step)

    def die(*arguments: Any) -> Any:
        if arguments[0] == "documents":  # what it is about to do is written down
            return real(*arguments)
        raise KilledError

    monkeypatch.setattr(target, step, die)
    items = ItemBatch(NAMES[:4], 2, unit(RNG, 4, DIMS[2]), [])
    with pytest.raises(KilledError):
        store.replace(items, keep_old=keep_old)
    store.close()
    again = open_store(store.url)
    done = step == "_settle"
    assert again.counts() == ({1: 5, 2: 4} if done else {1: 9})
    assert again.restore(1) == (4 if done and not keep_old else 0)
    assert again.replace(items, keep_old=False) == (NAMES[:4] if done and not keep_old else [])
    assert again.counts() == {1: 5, 2: 4}
    again.close()


def test_a_filter_that_the_server_cannot_narrow_down_is_still_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path)
    query = unit(RNG, 2, DIMS[1])
    where = parse_filter({"not": {"n": {">=": 2}}})
    monkeypatch.setattr("nobackfill.gallery.stores.milvus_search.LIMIT", 3)  # of nine, the best three may all be wrong
    found = store.search({1: query}, 2, where)[1]
    assert [set(ids) for ids in found.ids] == [set(NAMES[:2])] * 2
    store.close()


def test_documents_are_longer_than_a_field(tmp_path: Path) -> None:
    store = made(tmp_path)
    store.write(CREATING, None)
    for size in (0, 45_000, 45_001, 200_000):
        data = RNG.bytes(size)
        store.write("plan", data)
        assert store.read("plan") == data
    store.write("plan", None)
    assert store.read("plan") is None
    pieces = store._connection.count("documents", 'pk != ""')
    assert pieces == 2  # the sizes of the generations, and the row that names its one piece
    store.close()


def test_a_gallery_outlives_its_process(tmp_path: Path) -> None:
    rows, url = tmp_path / "rows.npy", f"milvus:{tmp_path / 'store.db'}"
    np.save(rows, unit(RNG, 9, DIMS[1]))
    for arguments in (["create", url], ["search", url, "--json"], ["status", url]):
        named = ["--vectors", str(rows), "--name", "old"] if arguments[0] != "status" else []
        command = [sys.executable, "-m", "nobackfill", "gallery", *arguments, *named]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        assert ended.stderr == ""
    assert f"{url}: 9 items" in ended.stdout


def test_collections_of_others_are_left_alone(tmp_path: Path) -> None:
    url = f"milvus:{tmp_path / 'store.db'}#shop"
    store: Any = open_store(url)
    other: Any = open_store(f"milvus:{tmp_path / 'store.db'}#other")
    others = other._connection
    one = Generation.named("old", 2)
    for suffix in ("g7", "hits"):
        others.client.create_collection(f"shop__{suffix}", dimension=2)
        for replace in (False, True):
            with pytest.raises(GalleryError, match=f"'shop__{suffix}', and there is one that is not the gallery's"):
                Gallery.create(store, one, replace=replace)
        assert others.client.list_collections() == [f"shop__{suffix}"]
        others.client.drop_collection(f"shop__{suffix}")
    Gallery.create(store, one)
    others.client.create_collection("shop__g2", dimension=2)
    with pytest.raises(GalleryError, match="'shop__g2', and there is one that is not the gallery's"):
        store.add_generation(2, 2)
    store.drop()
    assert others.client.list_collections() == ["shop__g2"]
    others.close()
    store.close()


def test_a_creation_killed_while_it_makes_a_collection_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = open_store(f"milvus:{tmp_path / 'store.db'}")
    store.create()
    store.write("creating", b"{}")
    real = store._documents.write

    def die(name: str, data: bytes | None) -> None:
        if name == "generations":  # the collection is there, and nothing but the intention says whose it is
            raise KilledError
        real(name, data)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(store._documents, "write", die)
        store.add_generation(1, 2)
    assert Gallery.create(store, Generation.named("old", 3)).count() == 0
    store.close()


def test_names_that_milvus_does_not_allow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="expected letters, digits and _"):
        open_store(f"milvus:{tmp_path / 'store.db'}#a b")
    with pytest.raises(GalleryError, match=r"ends in \.db"):
        open_store(f"milvus:{tmp_path / 'store'}")
    with pytest.raises(GalleryError, match=r"collection 'a b': expected letters"):
        plan_adoption(f"milvus:{tmp_path / 'store.db'}#a b", "m")
    with pytest.raises(GalleryError, match="the name is missing"):
        open_store("milvus+http://localhost:19530")
    with pytest.raises(GalleryError) as caught:
        open_store("milvus+http://me:secret@localhost:1#items").counts()
    assert "secret" not in str(caught.value)
