"""What only LanceDB can do, or do wrong: its folder, its small files, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.gallery.live import DIMS, NAMES, unit

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, Generation, open_store
from nobackfill.gallery.stores.base import CREATING, ItemBatch, Store
from nobackfill.gallery.writing import Batch

pytest.importorskip("lancedb")
RNG = np.random.default_rng(0)


def made(tmp_path: Path) -> Store:
    store = open_store(f"lance:{tmp_path / 'store'}")
    store.create()
    store.add_generation(1, DIMS[1])
    return store


def test_a_creation_that_was_killed_before_its_table_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = open_store(f"lance:{tmp_path / 'store'}")
    store.write(CREATING, b"{}")
    rows = unit(RNG, 2, DIMS[1])
    gallery = Gallery.create(store, Generation.named("m", DIMS[1]), [(NAMES[:2], rows, [{}, {}])])
    assert (gallery.count(), store.read(CREATING)) == (2, None)


def test_small_files_are_merged_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nobackfill.gallery.stores.lance_table.TIDY", 5)
    store, vectors = made(tmp_path), unit(RNG, 40, DIMS[1])
    for place, name in enumerate(NAMES[:12]):
        store.upsert(ItemBatch([name], 1, vectors[place : place + 1], [{}]))
    table = store._table._open()  # type: ignore[attr-defined]
    assert table.stats()["fragment_stats"]["num_fragments"] < 6
    assert store.counts() == {1: 12}


@pytest.mark.parametrize("damage", ["cut", "zeroed", "end"])
def test_damage_is_one_line(tmp_path: Path, damage: str) -> None:
    store = made(tmp_path)
    store.insert(ItemBatch(NAMES[:30], 1, unit(RNG, 30, DIMS[1]), [{}] * 30))
    (data,) = (tmp_path / "store" / "items.lance" / "data").iterdir()
    whole = data.read_bytes()
    data.write_bytes({"cut": whole[:100], "zeroed": bytes(len(whole)), "end": whole[:-40] + bytes(40)}[damage])
    for action in (lambda: store.search({1: unit(RNG, 1, DIMS[1])}, 3), lambda: list(store.scan(10))):
        with pytest.raises(GalleryError, match="damaged, or cannot be read") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_database_of_an_application_is_not_replaced(tmp_path: Path) -> None:
    import lancedb

    lancedb.connect(tmp_path / "store").create_table("items", [{"name": "mine"}])
    (tmp_path / "store" / "locks").mkdir()
    before = sorted(tmp_path.rglob("*"))
    batches: list[Batch] = [(NAMES[:2], unit(RNG, 2, DIMS[1]), [{}, {}])]
    with pytest.raises(GalleryError, match="exists and is not empty"):
        Gallery.create(f"lance:{tmp_path / 'store'}", Generation.named("m", DIMS[1]), batches, replace=True)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(GalleryError, match="no gallery there; nothing was changed"):
        open_store(f"lance:{tmp_path / 'store'}").drop()
    assert sorted(tmp_path.rglob("*")) == before


def test_no_results_are_asked_for(tmp_path: Path) -> None:
    rows, first = unit(RNG, 2, DIMS[1]), Generation.named("m", DIMS[1])
    gallery = Gallery.create(f"lance:{tmp_path / 'store'}", first, [(NAMES[:2], rows, [{}, {}])])
    assert gallery.search(rows, 0, first.fingerprint) == [[], []]


def test_drop_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    store = made(tmp_path)
    (tmp_path / "store" / "thesis.tex").write_text("mine")
    store.drop()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["thesis.tex"]


def test_a_table_that_is_a_link_is_refused(tmp_path: Path) -> None:
    store = made(tmp_path)
    (tmp_path / "store" / "items.lance").rename(tmp_path / "elsewhere")
    (tmp_path / "store" / "items.lance").symlink_to(tmp_path / "elsewhere")
    for action in (store.counts, lambda: store.compact(forget_kept=True)):
        with pytest.raises(GalleryError, match="'items.lance' is a link"):
            action()
    store.drop()
    assert any((tmp_path / "elsewhere").iterdir())
