"""`nobackfill fit` by the methods for frozen models, and the order of a backfill that comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.maps.pairs import items, write

import nobackfill
from nobackfill.cli.app import run
from nobackfill.gallery import Gallery
from nobackfill.gallery.uncertainties import read
from nobackfill.maps import uncertainty
from nobackfill.reports.document import read_report
from nobackfill.reports.html import build_report

PAIRS = ["--old", "old.npy", "--new", "new.npy"]
HELD = ["--test-old", "test_old.npy", "--test-new", "test_new.npy", "--test-labels", "test_labels.npy"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nobackfill.maps.budget.STEPS", 20)
    monkeypatch.setattr("nobackfill.maps.budget.RATES", (1e-2,))
    for prefix, (old, new, labels) in (("", items(600)), ("test_", items(200, seed=3))):
        arrays = {"old": old, "new": new, "labels": labels, "side": new[:, :4]}
        write(tmp_path, **{f"{prefix}{name}": array for name, array in arrays.items()})
    return tmp_path


def test_the_report_says_which_queries_and_which_gallery_a_method_needs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ["--method", "procrustes", "--method", "slerp"]
    assert run(["fit", *PAIRS, "--labels", "labels.npy", *HELD, *methods, "--out", "one"]) == 0
    sentences = (
        "new/old: the new model embeds queries; the gallery stays as it is (procrustes).",
        "new/mapped: the new model embeds queries; every stored vector is rewritten (procrustes).",
        "old + new/old: both models embed every query; the gallery stays as it is (slerp, rank merge).",
    )
    printed = capsys.readouterr().out
    assert run(["report", "one", "--out", "table.md"]) == 0
    texts = (printed, build_report(read_report(Path("one")), "one"), Path("table.md").read_text())
    assert all(sentence in text for sentence in sentences for text in texts)
    both = np.concatenate([np.load("test_old.npy"), np.load("test_new.npy")], axis=1)
    np.save("both.npy", both)
    assert run(["embed", "one/methods/slerp-to-old", "--vectors", "both.npy", "--out", "queries.npy"]) == 0
    np.testing.assert_allclose(
        np.load("queries.npy"), nobackfill.load("one/methods/slerp-to-old").encode(both), atol=1e-6
    )


@pytest.mark.train
def test_side_vectors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fct = ["fit", *PAIRS, *HELD, "--method", "fct", "--hidden", "16", "--side", "side.npy"]
    assert run([*fct, "--test-side", "test_side.npy", "--out", "one"]) == 0
    assert "(fct, fct_side)" in capsys.readouterr().out
    for words, message in (
        ([*fct], "--side: the held-out items need their side vectors too; give --test-side"),
        ([*fct, "--test-side", "side.npy"], "side.npy: 600 rows, but test_old.npy has 200"),
        (["fit", *PAIRS, *HELD, "--method", "fct", "--test-side", "test_side.npy"], "--test-side: needs --side"),
        (["fit", "--pairs", "p.parquet", "--method", "fct", "--side", "side.npy"], "--side: goes with --old and --new"),
    ):
        assert run([*words, "--out", "two"]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.train
def test_a_fastfill_run_orders_a_backfill(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["--method", "fastfill", "--method", "procrustes", "--hidden", "16"]
    assert run(["fit", *PAIRS, "--labels", "labels.npy", *methods, "--out", "fits"]) == 0
    store, fastfill = f"faiss:{here / 'store'}", "fits/methods/fastfill-to-new"
    assert run(["gallery", "create", store, "--name", "old", "--vectors", "test_old.npy"]) == 0
    assert run(["gallery", "uncertainty", store, "--run", fastfill]) == 0
    assert "uncertainties recorded: 200" in capsys.readouterr().out
    expected = uncertainty(Path(fastfill), np.load("test_old.npy"))
    known = read(Gallery.open(store).store)
    np.testing.assert_allclose([known[str(row)] for row in range(200)], expected, rtol=1e-5)
    # Of a file instead; that too is what a backfill goes by.
    values = np.random.default_rng(0).random(200)
    np.save("unsure.npy", values)
    assert run(["gallery", "uncertainty", store, "--values", "unsure.npy"]) == 0
    known = read(Gallery.open(store).store)
    assert [known[str(row)] for row in range(200)] == values.tolist()
    Path("ids.txt").write_text("a\nb\n")
    np.save("one.npy", np.float64(1))
    for words, message in (
        ([], "expected --run, or --values with or without --ids"),
        (
            ["--values", "unsure.npy", "--ids", "ids.txt"],
            "--ids ids.txt: expected one line for each of the 200 items, found 2",
        ),
        (["--values", "one.npy"], "one.npy: expected floats [n], found float64 []"),
        (["--values", "unsure.npy", "--ids", "one.npy"], "--ids one.npy: cannot be read as text"),
        (["--run", "fits/methods/procrustes-to-new"], "holds no uncertainty.safetensors"),
    ):
        assert run(["gallery", "uncertainty", store, *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert [known[str(row)] for row in range(200)] == values.tolist()
