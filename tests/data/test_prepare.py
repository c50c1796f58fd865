from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.test_cifar100 import NAMES, pack, write_python

from nobackfill.cli.app import run
from nobackfill.data.cifar100 import load_cifar100
from nobackfill.data.folder import load_folder
from nobackfill.data.preprocessing import read_image


def archive(folder: Path) -> Path:
    write_python(folder / "cifar-100-python")
    (folder / "cifar-100-python" / "test").write_bytes((folder / "cifar-100-python" / "train").read_bytes())
    return pack(folder / "cifar-100-python", folder / "cifar-100-python.tar.gz")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_an_archive_becomes_class_folders_with_the_same_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = archive(tmp_path), tmp_path / "out"
    prepare = ["data", "prepare", "cifar100", str(source), "--out", str(out)]
    assert run(prepare) == 2
    assert f"MD5 {md5(source)}, expected eb9058c3a382ffc7106e4002c42a8d85 or" in capsys.readouterr().err
    assert not out.exists()
    assert run([*prepare, "--md5", md5(source)]) == 0
    assert "5 training and 5 validation images" in capsys.readouterr().out
    expected, found = load_cifar100(source, "train"), load_folder(out, "train")
    assert found.class_names == tuple(sorted(NAMES))
    order = np.argsort(expected.labels, kind="stable")
    assert found.labels.tolist() == expected.labels[order].tolist()
    for path, position in zip(found.images, order, strict=True):
        np.testing.assert_array_equal(read_image(path), expected.images[position])
    assert run([*prepare, "--md5", md5(source)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_class_name_cannot_leave_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_python(tmp_path / "python")
    names = [b"../../escaped", *(name.encode() for name in NAMES[1:])]
    (tmp_path / "python" / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, protocol=2))
    (tmp_path / "python" / "test").write_bytes((tmp_path / "python" / "train").read_bytes())
    assert run(["data", "prepare", "cifar100", str(tmp_path / "python"), "--out", str(tmp_path / "a" / "out")]) == 2
    assert "class name '../../escaped' cannot be the name of a folder" in capsys.readouterr().err
    assert not list(tmp_path.rglob("escaped"))
    assert not (tmp_path / "a" / "out").exists()


def test_what_cannot_be_prepared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    Image.new("RGB", (32, 32)).save(tmp_path / "train" / "a" / "1.png")
    for arguments, message in (
        (["cifar10", str(tmp_path)], "unknown data set 'cifar10'; known: cifar100"),
        (["cifar100", str(tmp_path / "gone")], "no such folder or archive"),
        (["cifar100", str(tmp_path), "--md5", "0"], "--md5 needs an archive, found a folder"),
        (["cifar100", str(tmp_path)], "already contains class folders"),
    ):
        assert run(["data", "prepare", *arguments, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
