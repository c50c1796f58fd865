"""`gallery create --data` of what has no classes: a folder of images, a column of texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from nobackfill.cli.app import run
from nobackfill.gallery import Gallery

pytestmark = pytest.mark.train
MODEL = """
import numpy as np

def old(texts):
    return np.stack([np.random.default_rng(list(text.encode())).standard_normal(8) for text in texts])
"""


def test_texts_become_a_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("source_models.py").write_text(MODEL)
    rows = [{"key": f"note {place}", "body": f"text {place}"} for place in range(60)]
    Path("my notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = "texts:my notes.jsonl#body,key"
    assert run(["gallery", "create", "faiss:g", "--model", "python:source_models:old", "--data", data]) == 0
    assert "60 vectors" in capsys.readouterr().out
    gallery = Gallery.open("faiss:g")
    assert sorted(gallery.store.versions([row["key"] for row in rows])) == sorted(row["key"] for row in rows)
    found = ["gallery", "search", "faiss:g", "text 7", "--model", "python:source_models:old", "-k", "1", "--json"]
    assert run(found) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["hits"][0]["id"] == "note 7"
    assert gallery.manifest.source == f"test {data}"


def test_a_flat_folder_of_images_is_found_again_by_the_backfill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: dict[str, Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(4):
        Image.new("L", (8, 8), 60 * number).save(f"photos/{number} [red].png")
    create = ["gallery", "create", "faiss:g", "--run", str(runs["old"]), "--data"]
    assert run([*create, "folder:photos"]) == 2
    assert "for images without classes give --data images:photos" in capsys.readouterr().err
    assert run([*create, "images:photos"]) == 0
    assert "4 vectors" in capsys.readouterr().out
    new = ["--run", str(runs["bt2"])]
    assert run(["gallery", "upgrade", "faiss:g", "--unchecked", *new]) == 0
    assert run(["gallery", "backfill", "faiss:g", *new]) == 0
    assert "4 items replaced" in capsys.readouterr().out
    items = Gallery.open("faiss:g").store.payloads(["photos/2 [red].png"])
    assert items == {"photos/2 [red].png": {}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("texts:none.csv", "none.csv: cannot be read"),
        ("texts:notes.txt", "unknown file type"),
        ("images:none", "none: no such folder"),
        ("images:.", "no image files in it"),
    ],
)
def test_bad_sources_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: str, message: str,
    runs: dict[str, Path],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("x")
    assert run(["gallery", "create", "faiss:g", "--run", str(runs["old"]), "--data", data]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("g").exists()
