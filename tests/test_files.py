from __future__ import annotations

from pathlib import Path

import pytest

from nobackfill.errors import RunError
from nobackfill.files import atomic_file, atomic_folder, require_new, write_text


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
