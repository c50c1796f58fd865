"""The verbs end to end, as `nobackfill` runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from tests.conftest import tiny_config

import nobackfill
from nobackfill.cli.app import run

TINY = {
    "data": {"name": "digits", "image_size": 8, "train_limit": 200},
    "model": {"backbone": "smallnet8", "embedding_dim": 6},
    "epochs": 1,
    "precision": "fp32",
}


GEN0 = {"backbone": "smallnet8", "embedding_dim": 6}


def write_config(folder: Path, name: str, **keys: object) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**TINY, **keys}))
    return str(path)


def write_folder_data(root: Path, sizes: tuple[int, int] = (9, 9)) -> Path:
    generator = np.random.default_rng(0)
    for split in ("training", "validation"):
        for name in ("cat", "<b>dog</b>"):
            (root / split / name.replace("/", "")).mkdir(parents=True)
            for number in range(3):
                pixels = generator.integers(0, 256, (*sizes, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name.replace("/", "") / f"{number}.png")
    return root


def test_train_evaluate_embed(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    old = write_config(Path("tiny"), "old", method="independent")
    assert run(["train", old, "--set", "data.classes=first-half", "--set", "model.embedding_dim=4"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{Path('runs', 'tiny', 'old')}: trained in ")
    assert "self-test" in printed.out
    assert printed.err == "runs/tiny/old: independent on cpu, fp32 (as configured)\n"  # no bars without a terminal
    new = write_config(Path("tiny"), "new", method="bct", old="runs/tiny/old")
    assert run(["train", new, "--out", "new"]) == 0
    assert "new/old" in capsys.readouterr().out

    evaluate = ["evaluate", "--query", "new", "--gallery", "runs/tiny/old", "--data", "digits", "--out", "a/b.json"]
    assert run(evaluate) == 0
    printed = capsys.readouterr()
    assert all(words in printed.out for words in ("status quo", "nothing backfilled", "all backfilled"))
    assert "not trained to be compatible" not in printed.out
    report = json.loads(Path("a/b.json").read_text())
    assert [(row["query"], row["gallery"]) for row in report["searches"]] == [
        ("runs/tiny/old", "runs/tiny/old"), ("new", "runs/tiny/old"), ("new", "new"),
    ]  # fmt: skip
    metrics = json.loads(Path("new/metrics.json").read_text())
    assert report["searches"][1]["scores"]["mean_ap"] == pytest.approx(metrics["cross_test"]["mean_ap"], abs=1e-4)
    assert report["searches"][0]["scores"]["top1"] == metrics["status_quo"]["top1"]

    assert run(["evaluate", "--query", "runs/tiny/old", "--gallery", "new", "--data", new]) == 0
    assert "not trained to be compatible" not in capsys.readouterr().out  # old queries meet the prefix of new vectors
    assert run(["evaluate", "--query", str(runs["new"]), "--gallery", "runs/tiny/old", "--data", new]) == 0
    assert "not trained to be compatible" in capsys.readouterr().out
    assert run(["evaluate", "--query", "new", "--gallery", "new", "--data", "digits"]) == 0
    assert "self-test" in capsys.readouterr().out

    Path("eval.yaml").write_text("query: new\ngallery: runs/tiny/old\ndata: {name: digits}\n")
    assert run(["evaluate", "eval.yaml", "--out", "config.json"]) == 0
    assert json.loads(Path("config.json").read_text())["searches"] == report["searches"]
    capsys.readouterr()

    assert run(["embed", "new", "--data", "digits", "--out", "v.npy"]) == 0
    assert run(["embed", "new", "--data", "digits", "--out", "v.parquet"]) == 0
    vectors, table = np.load("v.npy"), pq.read_table("v.parquet")
    encoder = nobackfill.load("new")
    assert vectors.shape == (599, 6)
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    assert table.column_names == ["id", "label", "class", "vector"]
    assert json.loads(table.schema.metadata[b"nobackfill"])["fingerprint"] == encoder.spec.fingerprint


def test_embed_of_image_files_keeps_their_names(tmp_path: Path, runs: dict[str, Path]) -> None:
    root = write_folder_data(tmp_path / "data")
    out = tmp_path / "v.parquet"
    arguments = ["embed", str(runs["bt2"]), "--data", f"folder:{root}", "--out", str(out), "--workers", "0"]
    assert run(arguments) == 0
    table = pq.read_table(out)
    assert [Path(name).name for name in table["id"].to_pylist()] == ["0.png", "1.png", "2.png"] * 2
    assert table["class"].to_pylist() == ["<b>dog<b>"] * 3 + ["cat"] * 3
    assert run([*arguments, "--split", "train"]) == 0


def write_scenario(folder: Path, generations: int) -> str:
    """Generations g0, g1, … of independent, BCT and BT² models, each a little larger."""
    lineage: dict[str, dict[str, str]] = {}
    for number in range(generations):
        methods = ["independent"] if number == 0 else ["independent", "bct", "bt2"]
        for method in methods:
            model: dict[str, object] = {"backbone": "smallnet8", "embedding_dim": 6 + number}
            if method == "bt2":
                model["extra_dim"] = 6 + number - 1
            write_config(folder, f"{method}{number}", method=method, model=model)
        lineage[f"g{number}"] = {method: f"{method}{number}.yaml" for method in methods}
    (folder / "scenario.yaml").write_text(yaml.safe_dump({"generations": lineage, "seeds": 2}, sort_keys=False))
    return str(folder / "scenario.yaml")


@pytest.mark.train
def test_run_fills_the_triangle_of_every_method_and_keeps_finished_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scenario = write_scenario(Path("tiny"), generations=3)
    assert run(["run", scenario, "--out", "out"]) == 0
    printed = capsys.readouterr()
    assert all("fp32 (as configured)" in line for line in printed.err.splitlines())  # one line a training
    assert all(words in printed.out for words in ("status quo", "g2/g0", "±", "update gain", "AC (top-1)", "bt2"))
    report = json.loads(Path("out/report.json").read_text())
    cells = [(row["seed"], row["query"], row["method"], row["gallery"]) for row in report["searches"]]
    expected = [("g0", "independent", "g0")]
    for query, galleries in (("g1", ["g0", "g1"]), ("g2", ["g0", "g1", "g2"])):
        expected += [(query, method, gallery) for method in ("independent", "bct", "bt2") for gallery in galleries]
    assert cells == [(seed, *cell) for seed in (0, 1) for cell in expected]
    assert all(0 <= row["scores"][score] <= 1 for row in report["searches"] for score in ("top1", "top5", "mean_ap"))
    assert report["seconds"] > 0
    assert report["versions"]["nobackfill"] == nobackfill.__version__
    # Each score is that of a search of the test split in which no image finds itself.
    for row in (row for row in report["searches"] if row["query"] == "g1" and row["method"] != "independent"):
        metrics = json.loads(Path(f"out/seed{row['seed']}/g1/{row['method']}/metrics.json").read_text())
        own = metrics["self_test" if row["gallery"] == "g1" else "cross_test"]
        assert row["scores"] == pytest.approx(own, abs=1e-4)
    with Image.open("out/matrix.png") as picture:
        assert picture.format == "PNG"

    for method, dims in (("bct", [8, 7, 6]), ("bt2", [15, 13, 6])):
        third, first = nobackfill.load(f"out/seed1/g2/{method}"), nobackfill.load("out/seed1/g0/independent")
        assert [third.spec.dim, *(prefix.dim for prefix in third.spec.prefixes)] == dims
        for older in (f"out/seed1/g1/{method}", "out/seed1/g0/independent"):
            assert third.spec.compatible_with(nobackfill.load(older).spec)
        # The first values of the third generation answer the first one's gallery, padded with zeros or not.
        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
        queries, items = third.encode(images), first.encode(images)
        padded = np.pad(items, ((0, 0), (0, queries.shape[1] - 6)))
        np.testing.assert_allclose(queries @ padded.T, queries[:, :6] @ items.T, atol=1e-6)

    stamp = Path("out/seed1/g2/bt2/model.safetensors").stat().st_mtime_ns
    assert run(["run", scenario, "--out", "out"]) == 0
    assert Path("out/seed1/g2/bt2/model.safetensors").stat().st_mtime_ns == stamp
    assert json.loads(Path("out/report.json").read_text())["searches"] == report["searches"]
    capsys.readouterr()
    write_config(Path("tiny"), "bct1", method="bct", model={"backbone": "smallnet8", "embedding_dim": 8})
    assert run(["run", scenario, "--out", "out"]) == 2
    assert "g1/bct: its config differs in 'model.embedding_dim'" in capsys.readouterr().err
    write_scenario(Path("tiny"), generations=3)
    shutil.rmtree("out/seed0/g0")
    write_config(Path("tiny"), "independent0", method="independent", model=GEN0, batch_size=32)
    assert run(["run", scenario, "--seeds", "1", "--out", "out"]) == 2
    assert "was trained with other teachers" in capsys.readouterr().err
    Path("foreign").mkdir()
    Path("foreign/report.json").write_text("mine")
    assert run(["run", scenario, "--out", "foreign"]) == 2
    assert Path("foreign/report.json").read_text() == "mine"


@pytest.mark.train
def test_run_goes_on_with_a_broken_run_and_refuses_before_hours_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scenario = write_scenario(Path("tiny"), generations=2)
    Path("out/seed0/g1/bct.unfinished").mkdir(parents=True)  # killed before it wrote anything
    assert run(["run", scenario, "--seeds", "1", "--out", "out"]) == 0
    assert Path("out/seed0/g1/bct/model.safetensors").is_file()
    assert "AC (top-1)" not in capsys.readouterr().out
    write_config(Path("tiny"), "bt21", method="bt2", loss={"olt": 1})
    assert run(["run", scenario, "--seeds", "1", "--out", "new"]) == 2
    assert "unknown key 'loss.olt': did you mean 'old'" in capsys.readouterr().err
    assert not Path("new").exists()


@pytest.mark.train
def test_demo_is_the_digits_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nobackfill.cli import demo
    from nobackfill.experiments.config import load_scenario

    digits = load_scenario(demo._scenario())
    assert {name: list(methods) for name, methods in digits.generations.items()} == {
        "old": ["independent"], "new": ["independent", "bct", "bt2"],
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    tiny = Path(write_scenario(Path("tiny"), generations=2))
    monkeypatch.setattr(demo, "_scenario", lambda: tiny)
    assert run(["demo", "--seeds", "1"]) == 0
    assert {path.name for path in Path("nobackfill-demo").iterdir()} == {
        "report.json",
        "matrix.png",
        "learning.png",
        "seed0",
    }
    capsys.readouterr()
    assert run(["demo", "--seeds", "1"]) == 2
    assert "nobackfill-demo: this output folder exists and is not empty" in capsys.readouterr().err


def test_help_has_an_example_for_each_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("demo", "run", "runs", "train", "evaluate", "embed", "check", "import-reference"):
        assert run([verb, "--help"]) == 0
        assert f"Example: nobackfill {verb}" in " ".join(capsys.readouterr().out.split())
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"nobackfill {nobackfill.__version__}\n"


def test_as_a_module_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nobackfill", "embed", "gone", "--data", "digits", "--out", "v.npy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nobackfill: gone: no such run folder; train it first\n"


@pytest.mark.train
def test_python_and_command_line_take_the_same_config(tmp_path: Path) -> None:
    from nobackfill.config import dump_config

    config = tiny_config("independent")
    (tmp_path / "a.yaml").write_text(dump_config(config))
    assert run(["train", str(tmp_path / "a.yaml"), "--out", str(tmp_path / "cli")]) == 0
    library = nobackfill.train(config, tmp_path / "python")
    assert (tmp_path / "cli" / "model.safetensors").read_bytes() == (library / "model.safetensors").read_bytes()
