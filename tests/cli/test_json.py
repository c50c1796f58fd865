"""`--json` on every verb that prints results: one JSON document on stdout, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.test_help import verbs
from tests.maps.pairs import items, write

from nobackfill.cli.app import run

SILENT = {"export", "import-text", "import-clip", "import-reference"}
"""They write one thing where they are told to, and print where."""
PAIRS = ["--old", "old.npy", "--new", "new.npy", "--labels", "labels.npy"]
LABELS = ["--query-labels", "labels.npy", "--gallery-labels", "labels.npy", "--exclude-self"]
EVALUATE = ["evaluate", "--query", "old.npy", "--gallery", "old.npy", *LABELS, "--old-query", "old.npy"]
RUN = {
    "method": "independent", "data": {"name": "digits", "image_size": 8, "train_limit": 60},
    "model": {"backbone": "smallnet8", "embedding_dim": 6}, "schedule": {"warmup_epochs": 0}, "epochs": 1,
    "batch_size": 30, "precision": "fp32",
}  # fmt: skip


@pytest.mark.parametrize(("words", "command"), [pytest.param(*each, id=each[0]) for each in verbs()])
def test_every_verb_has_it_under_one_name(words: str, command: Any) -> None:
    flags = [each for each in command.params if "--json" in each.opts]
    assert [each.is_flag for each in flags] == ([] if words in SILENT else [True])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    old, new, labels = items(600)
    write(tmp_path, old=old, new=new, labels=labels)
    (tmp_path / "run.yaml").write_text(json.dumps(RUN))
    lineage = {"old": {"independent": "run.yaml"}, "new": {"independent": "run.yaml"}}
    (tmp_path / "scenario.yaml").write_text(json.dumps({"generations": lineage, "seeds": 1}))
    return tmp_path


def test_of_vectors_and_reports(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> Any:
        assert run([*arguments, "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    fitted = call("fit", *PAIRS, "--method", "procrustes", "--out", "fit")
    assert fitted == json.loads(Path("fit/report.json").read_text())
    evaluated = call(*EVALUATE, "--out", "figures.json")
    assert evaluated == json.loads(Path("figures.json").read_text())
    assert call("report", "fit")["file"] == "report.html"
    assert call("report", "figures.json", "--out", "x.md")["verdict"] == "do not ship"  # the same model twice
    embedded = call("embed", "fit", "--vectors", "new.npy", "--out", "mapped.npy")
    assert (embedded["vectors"], embedded["dim"]) == np.load("mapped.npy").shape
    assert call("doctor")["cores"] >= 1


def test_the_old_form_of_evaluate_still_writes_the_file(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*EVALUATE, "--json", "figures.json"]) == 0
    printed = capfd.readouterr()
    assert "--json figures.json: taken as --out figures.json" in printed.err
    assert "Verdict" in printed.out
    assert json.loads(Path("figures.json").read_text())["upgrades"]
    assert run([*EVALUATE, "--out", "one.json", "--json", "two.json"]) == 0
    assert Path("one.json").read_bytes() == Path("two.json").read_bytes()


@pytest.mark.train
def test_of_models(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> Any:
        assert run([*arguments, "--json", "-q"]) == 0
        return json.loads(capfd.readouterr().out)

    assert call("train", "run.yaml", "--out", "one")["run"] == "one"
    assert call("run", "scenario.yaml", "--out", "all") == json.loads(Path("all/report.json").read_text())
    assert "one" in {Path(each["path"]).name for each in call("runs", ".")}
    assert call("check", "run.yaml", "scenario.yaml")["configs"]["run.yaml"]["parameters"] > 0
    assert {card["name"] for card in call("methods")} >= {"bct", "bt2"}
    assert call("evaluate", "--query", "one", "--gallery", "one", "--data", "digits")["searches"]
