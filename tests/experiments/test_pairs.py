"""A scenario of pairs: the searches and the upgrade are those of `evaluate` on the same runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.training.test_texts import root

from nobackfill.cli.app import run
from nobackfill.reports.document import read_report

pytest.importorskip("transformers")
__all__ = ["root"]  # the fixture


@pytest.mark.train
def test_a_scenario_of_pairs_says_what_evaluate_says(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    common = {
        "data": {"name": "pairs", "train": str(root / "pairs.jsonl"), "test_fraction": 0.2},
        "model": {"backbone": "static", "embedding_dim": 6},
        "optimizer": {"lr": 0.01},
        "epochs": 2,
        "batch_size": 32,
        "precision": "fp32",
    }
    for method in ("independent", "prefix"):
        Path(f"{method}.yaml").write_text(yaml.safe_dump({**common, "method": method}))
    larger = ["model.embedding_dim=10"]
    generations = {
        "old": {"independent": "independent.yaml"},
        "new": {
            "independent": {"config": "independent.yaml", "set": larger},
            "prefix": {"config": "prefix.yaml", "set": [*larger, "init=null"]},
        },
    }
    Path("scenario.yaml").write_text(yaml.safe_dump({"generations": generations, "seeds": 1}, sort_keys=False))
    assert run(["run", "scenario.yaml", "--out", "out"]) == 0
    assert "prefix, old → new:" in capsys.readouterr().out
    report = read_report(Path("out"))
    assert {(each.method, each.query, each.gallery) for each in report.searches} == {
        ("independent", "old", "old"),
        *((method, "new", gallery) for method in ("independent", "prefix") for gallery in ("old", "new")),
    }
    command = ["evaluate", "--query", "out/seed0/new/prefix", "--gallery", "out/seed0/old/independent"]
    command += ["--independent", "out/seed0/new/independent", "--data", "prefix.yaml", "--json", "alone.json"]
    assert run(command) == 0
    alone = read_report(Path("alone.json"))
    places = {"out/seed0/new/prefix": "new", "out/seed0/old/independent": "old"}
    own = {
        (each.query, each.gallery): each.scores
        for each in report.searches
        if each.method == "prefix" or each.query == "old"
    }
    for each in alone.searches:
        assert own[places[each.query], places[each.gallery]] == pytest.approx(each.scores)
    (upgrade,) = [each for each in report.upgrades if each.method == "prefix"]
    assert upgrade.result == alone.upgrades[0].result
    assert upgrade.examples == alone.upgrades[0].examples
    assert any(example.query.text for example in upgrade.examples)
    assert not upgrade.result.classes
    metrics = json.loads(Path("out/seed0/new/prefix/metrics.json").read_text())
    assert own["new", "old"]["mean_ap"] == pytest.approx(metrics["cross_test"]["mean_ap"])
    for name in ("table.md", "page.html"):
        assert run(["report", "out", "--out", name]) == 0
