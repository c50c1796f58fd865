"""`gallery adopt` and `gallery abandon` on the command line; FAISS index files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from tests.gallery.applications import KEY, NAME, VECTOR, Application
from tests.gallery.galleries import COUNT, IDS, OLD, OLD_VECTORS

from nobackfill.cli.app import run
from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery
from nobackfill.gallery.copying import plan_copy

HOSTILE = "a\x1b]0;owned\x07\u202e"


@pytest.fixture
def application(server: str) -> Iterator[Application]:
    made = Application(server)
    yield made
    made.close()


def test_the_verbs_show_then_do(application: Application, capsys: pytest.CaptureFixture[str]) -> None:
    before = application.dump()
    adopt = ["gallery", "adopt", application.url, "--generation", NAME, "--vector-column", VECTOR, "--id-column", KEY]
    assert run([*adopt, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "-- now:\nCREATE SCHEMA" in shown
    assert "-- at each upgrade:\nALTER TABLE" in shown
    assert "nothing was changed (--dry-run)" in shown
    assert application.dump() == before
    assert run([*adopt, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["items"] == COUNT
    assert [statement for statement in made["statements"] if f"{statement};" not in shown] == []
    assert run([*adopt]) == 2
    assert "is a gallery already" in capsys.readouterr().err
    assert application.open().status().total == COUNT
    assert run(["gallery", "abandon", application.url, "--dry-run"]) == 0
    assert "DROP SCHEMA" in capsys.readouterr().out
    assert run(["gallery", "abandon", application.url]) == 2  # nobody there to ask
    assert "--yes" in capsys.readouterr().err
    assert run(["gallery", "abandon", application.url, "--yes"]) == 0
    assert application.dump() == before


def test_options_that_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--generation", "a", "--fingerprint", "b", "--model-name", "c"]
    assert run(["gallery", "adopt", "postgresql://localhost/db#items", *options]) == 2
    assert "not both" in capsys.readouterr().err
    assert run(["gallery", "adopt", "faiss:somewhere", "--generation", "a"]) == 2
    assert "expected postgresql://host/db#table" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Flat", "IDMap2,Flat", "IVF4,Flat", "HNSW8", "SQ8"])
def test_an_index_file_becomes_a_gallery_beside_it(tmp_path: Path, kind: str) -> None:
    index: Any = faiss.index_factory(OLD, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(OLD_VECTORS)
    if kind.startswith("IDMap"):
        index.add_with_ids(OLD_VECTORS, np.arange(COUNT) * 10)
    else:
        index.add(OLD_VECTORS)
    path, ids = tmp_path / "old.index", tmp_path / "ids.txt"
    faiss.write_index(index, str(path))
    content = path.read_bytes()
    ids.write_text("\n".join(IDS) + "\n", encoding="utf-8")
    plan = plan_copy(f"faiss:{tmp_path / 'gallery'}", "old", path, None if kind.startswith("IDMap") else ids)
    assert "are copied" in plan.notes[0]
    assert any("approximations" in note for note in plan.notes) == (kind == "SQ8")
    gallery = Gallery.open(plan.carry_out())
    names = [str(10 * place) for place in range(COUNT)] if kind.startswith("IDMap") else IDS
    found = gallery.search(OLD_VECTORS, 1, "name:old")
    assert [line[0].id for line in found] == names
    assert path.read_bytes() == content
    gallery.store.close()


@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
def test_an_index_of_vectors_of_different_norms_is_copied_with_a_note(tmp_path: Path, metric: int) -> None:
    path, norms = tmp_path / "old.index", np.linspace(0.5, 2, COUNT, dtype=np.float32)[:, None]
    for factor, noted in ((norms, True), (7, False)):  # of one norm, whatever it is, only directions differ
        index: Any = faiss.index_factory(OLD, "Flat", metric)
        index.add(factor * OLD_VECTORS)
        faiss.write_index(index, str(path))
        notes = plan_copy(f"faiss:{tmp_path / 'gallery'}", "old", path).notes
        named = "inner product" if metric == faiss.METRIC_INNER_PRODUCT else "Euclidean distance"
        assert any("norms from 0.5 to 2;" in note and named in note for note in notes) == noted
        assert len(notes) == 1 + noted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--index", "i", "--layout", "same-column"], "--layout: a FAISS index has no columns"),
        (["--index", "i", "--vector-column", "v"], "--vector-column: a FAISS index has no columns"),
        (["--ids", "ids.txt"], "--ids: goes with --index"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gallery", "adopt", "faiss:g", "--generation", "old", *options]) == 2
    assert message in capsys.readouterr().err


def test_files_that_are_no_index(tmp_path: Path) -> None:
    path, ids = tmp_path / "old.index", tmp_path / "ids.txt"
    url = f"faiss:{tmp_path / 'gallery'}"
    with pytest.raises(GalleryError, match="no such file"):
        plan_copy(url, "old", path)
    path.write_bytes(b"no index" * 20)
    with pytest.raises(GalleryError, match="cannot be read") as caught:
        plan_copy(url, "old", path)
    assert "\n" not in str(caught.value)
    flat = faiss.IndexFlatIP(OLD)
    flat.add(OLD_VECTORS)
    faiss.write_index(flat, str(path))
    ids.write_text("one\n", encoding="utf-8")
    with pytest.raises(GalleryError, match=f"expected {COUNT} lines"):
        plan_copy(url, "old", path, ids)
    assert not (tmp_path / "gallery").exists()


def test_adopting_prints_none_either(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    psycopg = pytest.importorskip("psycopg")
    table = f"a{HOSTILE}{tmp_path.name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f'CREATE TABLE "{table}" (id text PRIMARY KEY, embedding vector(3))')
        connection.execute(f'INSERT INTO "{table}" VALUES (%s, %s)', (HOSTILE, "[1,2,3]"))
    adopt = ["gallery", "adopt", f"{server}#{table}", "--generation", HOSTILE]
    for command in ([*adopt, "--dry-run"], adopt, ["gallery", "abandon", f"{server}#{table}", "--yes"]):
        assert run(command) == 0
    assert run([*adopt, "--vector-column", HOSTILE]) == 2
    captured = capsys.readouterr()
    assert not set(captured.out + captured.err) & set("\x1b\x07\u202e")
