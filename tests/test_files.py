from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nobackfill.errors import DataError, RunError
from nobackfill.files import atomic_file, atomic_folder, read_npy, require_new, write_text


def test_whole_file__appears_only_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    with pytest.raises(ValueError, match="stop"), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert list(path.parent.iterdir()) == []
    write_text(path, "whole")
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_whole_folder__appears_only_when_the_block_succeeds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "run") as working:
        (working / "half").touch()
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "run") as working:
        (working / "file").write_text("x")
    assert (tmp_path / "run" / "file").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_require_new(tmp_path: Path) -> None:
    require_new(tmp_path / "absent")
    require_new(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="exists and is not empty"):
        require_new(tmp_path)
    with pytest.raises(RunError, match="found a file"):
        require_new(tmp_path / "file")


def test_read_npy__maps_one_array_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6.0).reshape(2, 3))
    array = read_npy(path)
    array[0, 0] = 7  # in memory only
    assert read_npy(path).tolist() == [[0, 1, 2], [3, 4, 5]]

    def archive() -> None:
        with path.open("wb") as file:
            np.savez(file, a=np.ones(2))

    wrong: dict[str, Callable[[], object]] = {
        "no such file": path.unlink,
        "Python objects": lambda: np.save(path, np.array([{}], object), allow_pickle=True),
        "an archive of arrays": archive,
        "cannot be read": lambda: path.write_bytes(b"\x93NUMPY"),
    }
    for reason, write in wrong.items():
        path.touch()
        write()
        with pytest.raises(DataError, match=r"^--query: cannot be read as a \.npy array: .") as caught:
            read_npy(path, "--query")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(RunError, match="cannot be written: there is something there that is no file"):
            write_text(path, "x")
    assert (tmp_path / "pipe").is_fifo()
