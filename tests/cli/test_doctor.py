"""`doctor`: what is missing is named, galleries are asked, and no password is shown."""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from nobackfill.cli import installation
from nobackfill.cli.app import run

PYPROJECT = Path(__file__, "..", "..", "..", "pyproject.toml").resolve()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache folder of its own, and no PyTorch, which takes seconds to load."""
    monkeypatch.setenv("NOBACKFILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.fixture
def gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    np.save(tmp_path / "v.npy", np.eye(3, 4, dtype=np.float32))
    url = f"faiss:{tmp_path / 'g'}"
    assert run(["gallery", "create", url, "--name", "old", "--vectors", str(tmp_path / "v.npy")]) == 0
    capsys.readouterr()
    return url


def test_all_is_well(gallery: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", gallery]) == 0
    printed = capsys.readouterr().out
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in printed
    assert "devices: PyTorch is not installed" in printed
    assert f"cache {tmp_path / 'cache'}: not there yet" in printed
    assert f"store {gallery}: answers; 3 items, newest model old" in printed
    assert not (tmp_path / "cache").exists()


def test_a_gallery_that_does_not_answer(gallery: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("psycopg")
    server, absent = "postgresql://me:s3cret@127.0.0.1:1/shop#items", tmp_path / "absent"
    local = [f"{scheme}:{absent}" for scheme in ("faiss", "lance", "qdrant", "milvus")]
    assert run(["doctor", "--json", gallery, server, "s3cret", *local]) == 1
    printed = capsys.readouterr()
    stores = json.loads(printed.out)["stores"]
    assert [store["answers"] for store in stores] == [True] + [False] * 6
    assert stores[1]["url"] == "postgresql://127.0.0.1:1/shop#items"
    assert "refused" in stores[1]["state"]
    assert {store["state"] for store in stores[3:]} == {"nothing there"}
    assert "s3cret" not in printed.out + printed.err
    assert not absent.exists()


def test_a_folder_without_a_gallery_answers(tmp_path: Path) -> None:
    (state,) = installation.ask_stores([f"faiss:{tmp_path}"])
    assert (state.answers, state.state) == (True, "answers; no gallery there yet")


def test_a_slow_store_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_ask", lambda _: time.sleep(5))
    started = time.monotonic()
    states = installation.ask_stores(["postgresql://me:s3cret@far/db#a", "lance:b"], seconds=0.1)
    assert time.monotonic() - started < 2
    assert [(state.url, state.answers) for state in states] == [("postgresql://far/db#a", False), ("lance:b", False)]
    assert states[0].state.startswith("no answer within")


def test_an_unknown_error_of_a_client_is_not_quoted(monkeypatch: pytest.MonkeyPatch, gallery: str) -> None:
    def broken(url: str) -> None:
        raise ValueError(f"cannot read {url}")

    monkeypatch.setattr("nobackfill.gallery.stores.registry.open_store", broken)
    (state,) = installation.ask_stores([gallery])
    assert (state.answers, state.state) == (False, "failed with ValueError")


def test_what_an_extra_lacks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    installed = {"numpy": "2.1.0", "torch": "2.9.0", "timm": "1.0.3"}
    wanted = ["numpy>=2.0", "torch>=2.11; extra == 'train'", "timm>=1.0; extra == 'train'", "nobackfill[train]",
              "ray[data]>=2.51; extra == 'ray'", "timm>=1; extra == 'text'", "pytest>=8; extra == 'dev'"]  # fmt: skip

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    monkeypatch.setattr(metadata, "version", version)
    versions, extras = installation.packages()
    assert versions == {**installed, "ray": None}
    lacking = {extra.name: extra.lacking for extra in extras}
    assert lacking["train"] == ["torch>=2.11 (2.9.0 is installed)"]
    assert lacking["ray"] == ["ray>=2.51"]
    assert lacking["text"] == []
    assert run(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "extra train: missing torch>=2.11 (2.9.0 is installed); for train, run" in printed
    assert "pip install 'nobackfill[ray]'" in printed
    assert "extra text: installed" in printed


def test_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert installation.packages() == ({}, [])


def test_every_extra_is_described() -> None:
    extras = PYPROJECT.read_text().partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    names = {line.partition(" =")[0] for line in extras.splitlines() if " = [" in line}
    assert names - {"dev", "docs"} == set(installation.EXTRAS)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_the_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cache"
    (folder / "teachers").mkdir(parents=True)
    (folder / "teachers" / "a.npy").write_bytes(bytes(2_000_000))
    folder.chmod(0o700)
    kept = installation.cache()
    assert (kept.exists, kept.size, kept.mode, kept.problem) == (True, 2_000_000, "0700", None)
    folder.chmod(0o777)
    assert run(["doctor"]) == 0
    assert "2.0 MB, owner" in (printed := capsys.readouterr().out)
    assert "mode 0777; every user can replace what it keeps" in printed


def test_a_pytorch_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert installation.devices() == ([], "PyTorch does not work: libcudart.so.13: cannot open shared object file")


@pytest.mark.train
def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # PyTorch is there again
    found, why_none = installation.devices()
    assert why_none is None
    assert (found[0].name, found[0].model) == ("cpu", "CPU")
    assert isinstance(found[0].bf16, bool)
