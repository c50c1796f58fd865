"""`nobackfill fit` and what its run folders are used for, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.maps.pairs import NEW, items, write

import nobackfill
from nobackfill.cli.app import run
from nobackfill.files import publish_folder
from nobackfill.maps import fitting
from nobackfill.reports.document import read_report
from nobackfill.reports.html import build_report

QUICK = ["--method", "procrustes", "--method", "ridge"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    old, new, labels = items(600)
    write(tmp_path, old=old, new=new.astype(np.float16), labels=labels)
    old, new, labels = items(200, seed=3)
    write(tmp_path, test_old=old, test_new=new, test_labels=labels)
    return tmp_path


PAIRS = ["--old", "old.npy", "--new", "new.npy"]
HELD = ["--test-old", "test_old.npy", "--test-new", "test_new.npy", "--test-labels", "test_labels.npy"]


def test_the_verdict_stands_on_held_out_items(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", *PAIRS, "--labels", "labels.npy", *HELD, *QUICK, "--out", "fits/one"]) == 0
    printed = capsys.readouterr()
    for words in ("status quo", "full backfill", "new/mapped", "mAP against the status quo", "fits/one: "):
        assert words in printed.out
    report = json.loads(Path("fits/one/report.json").read_text())
    assert [line["name"] for line in report["fit"]["results"][:2]] == ["status quo", "full backfill"]
    assert report["fit"]["verdict"]["decision"] == "use it"
    page = build_report(read_report(Path("fits/one")), "fits/one")
    assert "All methods, on held-out items" in page
    assert "All searches" not in page

    # The folder works like any other run's.
    assert run(["embed", "fits/one", "--vectors", "test_new.npy", "--out", "embedded.npy"]) == 0
    made = np.load("embedded.npy")
    np.testing.assert_allclose(made, nobackfill.load("fits/one").encode(np.load("test_new.npy")), atol=1e-6)
    capsys.readouterr()
    arrays = ["--query", "test_new.npy", "--gallery", "test_old.npy", "--old-query", "test_old.npy", "--exclude-self"]
    labels = ["--query-labels", "test_labels.npy", "--gallery-labels", "test_labels.npy"]
    assert run(["evaluate", *arrays, *labels, "--query-run", "fits/one", "--out", "figures.json"]) == 0
    best = next(line for line in report["fit"]["results"] if line["name"] == report["fit"]["best"])
    searches = json.loads(Path("figures.json").read_text())["searches"]
    expected = [report["fit"]["results"][0]["scores"]["top1"], best["scores"]["top1"]]
    assert [search["scores"]["top1"] for search in searches] == pytest.approx(expected)
    mapped = f"fits/one/methods/{report['fit']['best']}-to-new"
    swapped = ["--query", "test_new.npy", "--gallery", "test_old.npy", "--gallery-run", mapped, *labels]
    assert run(["evaluate", *swapped, "--exclude-self"]) == 0
    assert run(["evaluate", *swapped, "--old-query", "test_old.npy"]) == 2
    assert "--gallery-run: goes without --old-query" in capsys.readouterr().err


def test_a_gallery_of_vectors_is_upgraded_by_a_fitted_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", *PAIRS, "--method", "ridge", "--direction", "to-old", "--old-name", "ada", "--out", "fit"]) == 0
    store = f"faiss:{here / 'store'}"
    assert run(["gallery", "create", store, "--name", "ada", "--vectors", "test_old.npy"]) == 0
    assert run(["gallery", "upgrade", store, "--run", "fit", "--vectors", "test_new.npy"]) == 0
    capsys.readouterr()
    search = ["gallery", "search", store, "--run", "fit", "--vectors", "test_new.npy", "-k", "3", "--json"]
    assert run(search) == 0
    before = json.loads(capsys.readouterr().out)
    assert all(hit["generation"] == "ada" for answer in before for hit in answer["hits"])
    assert run(["gallery", "backfill", store, "--run", "fit", "--vectors", "test_new.npy"]) == 0
    assert run(["gallery", "verify", store]) == 0
    capsys.readouterr()
    assert run(search) == 0
    after = json.loads(capsys.readouterr().out)
    assert [answer["hits"][0]["id"] for answer in after] == [str(number) for number in range(200)]  # each finds itself
    assert run(["gallery", "search", store, "--run", "fit", "--vectors", "test_old.npy"]) == 2
    assert "vectors: expected floats [n, 14], found float32 [200, 10]" in capsys.readouterr().err


def table(path: str, columns: dict[str, object]) -> None:
    arrays = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(value, np.float32).ravel()), value.shape[1])
        if isinstance(value, np.ndarray) and value.ndim == 2
        else value
        for name, value in columns.items()
    }
    pq.write_table(pa.table(arrays), path)


def test_parquet_files_are_joined_by_id(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, labels = np.load("old.npy"), np.load("new.npy"), np.load("labels.npy")
    ids, order = [f"item/{number}" for number in range(600)], np.random.default_rng(0).permutation(600)
    table("old.parquet", {"id": ids[:500], "vector": old[:500], "label": [f"<{label}>" for label in labels[:500]]})
    table("new.parquet", {"id": [ids[place] for place in order], "vector": new[order]})
    assert run(["fit", "--old", "old.parquet", "--new", "new.parquet", *QUICK, "--out", "joined"]) == 0
    printed = capsys.readouterr()
    assert "items in only one of old.parquet and new.parquet: 100; pairs left: 500" in printed.err
    write(here / "rows", old=old[:500], new=new[:500].astype(np.float32), labels=labels[:500])
    arrays = ["--old", "rows/old.npy", "--new", "rows/new.npy", "--labels", "rows/labels.npy"]
    assert run(["fit", *arrays, *QUICK, "--out", "rowwise"]) == 0
    fits = [json.loads(Path(name, "report.json").read_text())["fit"] for name in ("joined", "rowwise")]
    assert fits[0]["results"] == fits[1]["results"]
    assert sorted(path.name for path in Path("joined").iterdir()) == sorted(p.name for p in Path("rowwise").iterdir())
    capsys.readouterr()
    for columns, message in (
        ({"id": ids, "vectors": old}, "no column 'vector'; it has id, vectors"),
        ({"id": [*ids[:599], ids[0]], "vector": old}, "duplicate id 'item/0'"),
        ({"vector": old}, "no column 'id' to join by"),
        ({"id": [None, *ids[1:]], "vector": old}, "column 'id': 1 of 600 rows have none"),
        ({"id": [f"x{name}" for name in ids], "vector": old}, "shares no id with old.parquet"),
        ({"id": ids, "vector": [[1.0]] * 599 + [[1.0, 2.0]]}, "expected lists of floats, all of the same length"),
        ({"id": ids, "vector": [[1.0, 2.0]] * 598 + [[1.0], [1.0, 2.0, 3.0]]}, "all of the same length"),
        ({"id": ids, "vector": [[1.0]] * 598 + [None, [1.0, 2.0]]}, "all of the same length"),
    ):
        table("new.parquet", columns)
        assert run(["fit", "--old", "old.parquet", "--new", "new.parquet", "--out", "no"]) == 2
        assert message in capsys.readouterr().err


def test_labels_of_both_parquet_files_have_to_agree(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, labels = np.load("old.npy"), np.load("new.npy"), np.load("labels.npy").tolist()
    ids = [f"item/{number}" for number in range(600)]
    files = ["fit", "--old", "old.parquet", "--new", "new.parquet", *QUICK, "--direction", "to-old"]
    table("old.parquet", {"id": ids[1:], "vector": old[1:], "label": labels[1:]})
    table("new.parquet", {"id": ids, "vector": new, "label": [99, *labels[1:]]})  # item/0 is no pair
    assert run([*files, "--out", "agree"]) == 0
    table("new.parquet", {"id": ids, "vector": new, "label": [*labels[:7], 99, *labels[8:]]})
    assert run([*files, "--out", "differ"]) == 2
    assert f"id 'item/7' has 99, but {labels[7]} in old.parquet" in capsys.readouterr().err


def test_queries_that_are_no_items_have_their_own_relevance(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, labels = np.load("old.npy"), np.load("new.npy"), np.load("labels.npy")
    ids = [f"doc{number}" for number in range(600)]
    table("pairs.parquet", {"id": ids, "old": old, "new": new, "label": [None, *range(599)]})
    assert run(["fit", "--pairs", "pairs.parquet", "--out", "known"]) == 2
    assert "pairs.parquet: column 'label': 1 of 600 rows have none" in capsys.readouterr().err
    table("pairs.parquet", {"id": ids, "old": old, "new": new, "label": [[1], *[[1, 2]] * 599]})
    assert run(["fit", "--pairs", "pairs.parquet", "--out", "known"]) == 2
    assert "column 'label': expected integers or texts, found list" in capsys.readouterr().err
    assert run(["fit", "--pairs", "pairs.parquet", "--old-name", "a", "--new-name", "a", "--out", "known"]) == 2
    assert "both are 'a'; two models need two names" in capsys.readouterr().err
    table("pairs.parquet", {"id": ids, "old": old, "new": new})
    queries_old, queries_new, asked = items(40, seed=9)
    write(here, q_old=queries_old, q_new=queries_new)
    places = [np.flatnonzero(labels == label)[:5].tolist() for label in asked]
    Path("relevant.json").write_text(json.dumps([[ids[place] for place in line] for line in places]))
    asked_for = ["--query-old", "q_old.npy", "--query-new", "q_new.npy", "--relevant", "relevant.json"]
    assert run(["fit", "--pairs", "pairs.parquet", *asked_for, *QUICK, "--out", "known"]) == 0
    assert "The gallery searched here was used for fitting" in capsys.readouterr().out
    line = json.loads(Path("known/report.json").read_text())["fit"]["results"][0]
    metrics = nobackfill.retrieval_metrics(queries_old, old, relevant=places, topk=(1, 10))
    assert tuple(line["scores"][score] for score in ("top1", "top10", "mean_ap")) == pytest.approx(
        (metrics.cmc[1], metrics.cmc[10], metrics.mean_ap)
    )
    Path("relevant.json").write_text(json.dumps([["doc0"]] * 39 + [["doc 600"]]))
    assert run(["fit", "--pairs", "pairs.parquet", *asked_for, *QUICK, "--out", "unknown"]) == 2
    assert "no item has the id 'doc 600'" in capsys.readouterr().err


def test_a_fit_that_is_killed_as_it_appears_has_its_report(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException): ...

    def killed(working: Path, out: Path) -> None:
        publish_folder(working, out)
        raise KilledError

    monkeypatch.setattr(fitting, "publish_folder", killed)
    with pytest.raises(KilledError):
        run(["fit", *PAIRS, "--labels", "labels.npy", *QUICK, "--out", "one"])
    fit = read_report(Path("one")).fit
    assert fit is not None
    assert fit.verdict.decision == "use it"


def test_a_fit_without_labels_says_what_was_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", *PAIRS, *QUICK, "--out", "one"]) == 0
    printed = capsys.readouterr().out
    assert "nearer to the new model's answers than the status quo" in printed
    assert "Whether the new model's answers are better is unknown" in printed
    assert "Verdict: use it. Use " in printed
    assert "if you want the new model's answers" in printed
    assert "better than" not in printed
    assert "better at once" not in printed


@pytest.mark.train
def test_a_sweep_is_drawn(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nobackfill.maps.budget.STEPS", 20)
    monkeypatch.setattr("nobackfill.maps.budget.RATES", (1e-3,))
    sizes = ["--extra-dim", "0", "--extra-dim", "4", "--scale", "1", "--scale", "2"]
    assert run(["fit", *PAIRS, "--labels", "labels.npy", "--method", "bt2", *sizes, "--out", "swept"]) == 0
    with Image.open("swept/trade.png") as picture:
        assert picture.format == "PNG"
    lines = json.loads(Path("swept/report.json").read_text())["fit"]["results"]
    dims = {line["name"]: line["dim"] for line in lines if line["searched"] == "new/new" and "bt2" in line["name"]}
    assert dims == {f"bt2_k{k}_c{c}": NEW + k for k in (0, 4) for c in (1, 2)}


BAD = {
    "nothing": ([], "expected --old and --new, or --pairs"),
    "both": ([*PAIRS, "--pairs", "p.parquet"], "--pairs: already holds old, new and labels"),
    "direction": ([*PAIRS, "--direction", "up"], "--direction 'up': expected to-old, to-new, both"),
    "holdout": ([*PAIRS, "--holdout", "1"], "--holdout 1.0: expected a fraction between 0 and 1"),
    "scale": ([*PAIRS, "--scale", "0"], "--scale: expected values above 0"),
    "one test": ([*PAIRS, "--test-old", "test_old.npy"], "--test-old and --test-new: give both or neither"),
    "no relevance": ([*PAIRS, "--query-old", "old.npy", "--query-new", "new.npy"], "give all three or none"),
    "swapped": (
        [*PAIRS, "--test-old", "test_new.npy", "--test-new", "test_old.npy"],
        "test_new.npy: 14 values per row",
    ),
    "one name": ([*PAIRS, "--old-name", "new"], "two models need two names"),
    "odd name": ([*PAIRS, "--old-name", "a:b"], "--old-name 'a:b': expected a name without spaces or colons"),
    "no file": (["--old", "none.npy", "--new", "new.npy"], "none.npy: cannot be read as a .npy array: no such file"),
    "labels": (
        [*PAIRS, "--labels", "test_labels.npy"],
        "test_labels.npy: expected integers [600], one for each row, found int64 [200]",
    ),
    "holdout beside test": ([*PAIRS, *HELD, "--holdout", "0.3"], "--holdout: --test-old names what is held out"),
    "holdout beside queries": (
        [*PAIRS, "--query-old", "old.npy", "--query-new", "new.npy", "--relevant", "r.json", "--holdout", "0.2"],
        "--holdout: --query-old names what is held out; leave one of them out",
    ),
    "split": ([*PAIRS, "--split", "train"], "--split: goes with --data, which is missing; leave it out"),
    "unused scale": (
        [*PAIRS, "--scale", "2"],
        "--scale: only for --method bt2, bt2_residual; found ridge; leave it out",
    ),
    "unused k": ([*PAIRS, "--extra-dim", "99"], "--extra-dim: only for --method bt2, bt2_residual; found ridge"),
    "unused hidden": (
        [*PAIRS, "--hidden", "512"],
        "--hidden: only for --method mlp, bt2_residual, fct, fastfill, lambda_orthogonal; found ridge",
    ),
    "not parquet": (["--pairs", "old.npy"], "old.npy: cannot be read as parquet"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_ends_in_one_line(here: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = BAD[name]
    assert run(["fit", *arguments, "--method", "ridge", "--out", "out"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not Path("out").exists()
    assert not Path("out.unfinished").exists()
