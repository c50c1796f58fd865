"""The cache is trusted like a computation: only what this user wrote, unchanged, is read back."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from nobackfill import cache
from nobackfill.arrays import Array
from nobackfill.errors import DataError

KEY = {"teacher": "abc", "parts": [1, 2]}
TRUE = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("NOBACKFILL_CACHE", str(folder))
    return folder


def vectors() -> Array:
    return cache.cached("teachers", KEY, lambda: {"vectors": TRUE})["vectors"]


def entry(root: Path) -> Path:
    (path,) = (each for each in (root / "teachers").iterdir() if each.is_dir())
    return path


def test_it_is_private(root: Path) -> None:
    before = os.umask(0)
    try:
        vectors()
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))}
    assert len(modes) == 6
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in modes}


def test_a_folder_that_others_could_read_becomes_private(root: Path) -> None:
    (root / "teachers").mkdir(parents=True)
    (root / "teachers").chmod(0o775)
    vectors()
    assert stat.S_IMODE((root / "teachers").stat().st_mode) == 0o700


@pytest.mark.parametrize("planted", [TRUE + 1, TRUE[:2], TRUE.astype(np.float64), TRUE.reshape(3, 4)])
def test_changed_arrays_are_computed_anew(root: Path, planted: Array) -> None:
    vectors()
    np.save(entry(root) / "vectors.npy", planted)
    assert not cache.is_cached("teachers", KEY)
    np.testing.assert_array_equal(vectors(), TRUE)
    assert cache.is_cached("teachers", KEY)


def test_an_entry_of_another_key_is_not_taken(root: Path) -> None:
    vectors()
    noted = json.loads((entry(root) / cache.ENTRY).read_text())
    (entry(root) / cache.ENTRY).write_text(json.dumps({**noted, "key": {"teacher": "other"}}))
    assert not cache.is_cached("teachers", KEY)
    np.testing.assert_array_equal(vectors(), TRUE)


@pytest.mark.parametrize("text", ["", "[]", '{"key": 1}', "[" * 10**5, '{"key": {}, "arrays": {"../x": {}}}', "\0"])
def test_a_damaged_entry_is_written_anew(root: Path, text: str) -> None:
    vectors()
    (entry(root) / cache.ENTRY).write_text(text)
    np.testing.assert_array_equal(vectors(), TRUE)


def test_a_linked_entry_is_not_followed(root: Path, tmp_path: Path) -> None:
    vectors()
    place = entry(root)
    shutil.move(place, tmp_path / "elsewhere")
    np.save(tmp_path / "elsewhere" / "vectors.npy", TRUE + 1)
    place.symlink_to(tmp_path / "elsewhere")
    np.testing.assert_array_equal(vectors(), TRUE)
    assert np.load(tmp_path / "elsewhere" / "vectors.npy")[0, 0] == 1  # what the link points to stays


def test_what_another_user_wrote_is_not_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors()
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert not cache.is_cached("teachers", KEY)
    with pytest.raises(DataError, match=r"teachers: belongs to another user.*NOBACKFILL_CACHE"):
        vectors()


@pytest.mark.skipif(not hasattr(os, "chown") or os.geteuid() != 0, reason="only root can give a file away")
def test_one_planted_file_is_enough_to_refuse_an_entry(root: Path) -> None:
    vectors()
    os.chown(entry(root) / "vectors.npy", 4242, -1)
    assert not cache.is_cached("teachers", KEY)
    np.testing.assert_array_equal(vectors(), TRUE)


def test_a_folder_in_which_anyone_may_replace_others_files_is_refused(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(DataError, match="mode 0777"):
        vectors()
    root.chmod(0o1777)  # as /tmp: nobody can rename what is another's
    np.testing.assert_array_equal(vectors(), TRUE)


def test_empty_and_scalar_arrays_come_back() -> None:
    made = {"none": np.zeros((0, 3), np.int64), "one": np.float32(2.5) * np.ones(())}
    found = cache.cached("kind", {}, lambda: made)
    assert found["none"].shape == (0, 3)
    assert found["one"] == 2.5
