"""What only the FAISS folder can do, or do wrong: its files, its format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.gallery.galleries import COUNT, FIRST, IDS, NEW_VECTORS, OLD_VECTORS, PAYLOADS, SECOND, embed, upgraded

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, open_store

FIXTURE = Path(__file__).parents[1] / "fixtures" / "gallery_format_1"


def test_a_gallery_of_format_1_opens_searches_verifies_and_goes_on(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "store")
    gallery = Gallery.open(f"faiss:{tmp_path / 'store'}")
    status = gallery.status()
    assert status.items == (40, 20)
    assert status.job is not None
    assert (status.job.done, status.job.batches, status.job.finished) == (2, 6, False)
    assert gallery.verify() == []
    (hits,) = gallery.search(NEW_VECTORS[30:31], 1, SECOND.fingerprint)
    assert hits[0].generation in ("first", "second")
    (hits,) = gallery.search(OLD_VECTORS[30:31], 1, FIRST.fingerprint)
    assert hits[0].id == IDS[30]
    assert hits[0].payload == PAYLOADS[30]
    assert dict(gallery.store.hits()) == {IDS[3]: 1}
    job = gallery.backfill(embed, fingerprint=SECOND.fingerprint)  # the job that was stopped
    assert (job.replaced, job.keep_old) == (COUNT, True)
    gallery.rollback("first")
    assert gallery.store.counts() == {1: COUNT}
    np.testing.assert_allclose(gallery.store.fetch(IDS)[0].vectors, OLD_VECTORS, atol=1e-6)


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "store")
    path = tmp_path / "store" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "format": 7}))
    with pytest.raises(GalleryError, match="state.json has format 7; this release reads format 1"):
        open_store(f"faiss:{tmp_path / 'store'}").counts()
    state["segments"][0]["name"] = "../../000001"
    path.write_text(json.dumps(state))
    with pytest.raises(GalleryError, match="state.json is damaged"):
        open_store(f"faiss:{tmp_path / 'store'}").counts()


@pytest.mark.parametrize("name", ["segments", "items", "documents"])
def test_a_folder_that_is_a_link_is_refused_and_nothing_behind_it_removed(tmp_path: Path, name: str) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = upgraded(store)
    target = tmp_path / "elsewhere"
    (tmp_path / "store" / name).rename(target)
    foreign = [target / "thesis.tex", target / "999999.parquet"]
    for path in foreign:
        path.write_text("mine")
    (tmp_path / "store" / name).symlink_to(target)
    for action in (gallery.compact, Gallery.open(store).verify, lambda: gallery.backfill(embed, fingerprint="b" * 64)):
        with pytest.raises(GalleryError, match=f"its folder '{name}' is a link; replace it with the folder itself"):
            open_store(store.url).counts()
        with pytest.raises(GalleryError):
            store.close()
            action()
    assert [path.read_text() for path in foreign] == ["mine", "mine"]


def test_compact_removes_its_own_files_only(tmp_path: Path) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = upgraded(store)
    segments = tmp_path / "store" / "segments"
    for name in ("notes.txt", "1.parquet", "my 000009.parquet"):
        (segments / name).write_text("mine")
    (segments / "old").mkdir()
    for name in ("000099.parquet", ".000099.abc_12.parquet"):  # of a write that was cut short
        (segments / name).touch()
    gallery.compact()
    left = sorted(path.name for path in segments.iterdir())
    assert left[1:] == ["1.parquet", "my 000009.parquet", "notes.txt", "old"]
    assert len(left) == 5
    assert gallery.verify() == []
