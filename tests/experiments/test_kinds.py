"""Scenarios of pairs and of vectors: the searches and the upgrade are those of `evaluate` on the same runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.maps.pairs import items, write
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
    printed = capsys.readouterr().out
    assert "prefix, old → new:" in printed
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
        assert f"{100 * each.scores['recall10']:.1f}" in printed
        assert f"{100 * each.scores['mrr']:.1f}" in printed
    (upgrade,) = [each for each in report.upgrades if each.method == "prefix"]
    assert upgrade.result == alone.upgrades[0].result
    assert upgrade.examples == alone.upgrades[0].examples
    assert any(example.query.text for example in upgrade.examples)
    assert not upgrade.result.classes
    metrics = json.loads(Path("out/seed0/new/prefix/metrics.json").read_text())
    assert own["new", "old"]["mean_ap"] == pytest.approx(metrics["cross_test"]["mean_ap"])
    for name in ("table.md", "page.html"):
        assert run(["report", "out", "--out", name]) == 0


@pytest.mark.train
def test_a_scenario_of_vectors_says_what_its_runs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each run embeds vectors of its own, of the same items."""
    monkeypatch.chdir(tmp_path)
    old, new, labels = items(500)
    write(
        tmp_path,
        old=old,
        new=new,
        both=np.hstack([new, old]),
        labels=labels,
        test=np.arange(400, 500),
        others=np.arange(300, 400),
    )
    for name in ("old", "new"):
        data = {"name": "vectors", "vectors": f"{name}.npy", "labels": "labels.npy", "test_rows": "test.npy"}
        common = {"model": {"backbone": "vectors/linear", "embedding_dim": 8}, "batch_size": 64, "precision": "fp32"}
        Path(f"{name}.yaml").write_text(yaml.safe_dump({**common, "data": data, "method": "independent", "epochs": 2}))
    settings = {"config": "new.yaml", "set": ["method=prefix"]}  # the scenario knows what the old model takes
    generations: dict[str, dict[str, Any]] = {
        "old": {"independent": "old.yaml"},
        "new": {
            "independent": "new.yaml",
            "prefix": settings,
            "larger": {"config": "new.yaml", "set": ["method=prefix", "data.vectors=both.npy"]},
        },
    }
    Path("scenario.yaml").write_text(yaml.safe_dump({"generations": generations, "seeds": 1}, sort_keys=False))
    small = ["method=dsimplex_hoc"]
    generations["new"]["simplex"] = {"config": "new.yaml", "set": small}
    Path("more.yaml").write_text(yaml.safe_dump({"generations": generations, "seeds": 1}, sort_keys=False))
    assert run(["run", "more.yaml", "--out", "more"]) == 2
    message = (
        "nobackfill: new/simplex: key 'model.embedding_dim': 8 values have 9 simplex corners, too few for 12 classes"
    )
    assert message in capsys.readouterr().err
    assert not Path("more").exists()
    for changes, message in (
        (
            ["data.old_inputs=new.npy"],
            "new/simplex: key 'data.old_inputs': new.npy, but the older generation takes old",
        ),
        (["data.test_rows=others.npy"], "new/simplex: its test rows are not those of the older generation"),
    ):
        generations["new"]["simplex"] = {"config": "new.yaml", "set": ["method=bct", *changes]}
        Path("more.yaml").write_text(yaml.safe_dump({"generations": generations, "seeds": 1}, sort_keys=False))
        assert run(["run", "more.yaml", "--out", "more"]) == 2
        assert message in capsys.readouterr().err
    assert run(["check", "scenario.yaml"]) == 0
    assert run(["run", "scenario.yaml", "--out", "out"]) == 0
    found = {(each.method, each.query, each.gallery): each.scores for each in read_report(Path("out")).searches}
    for method in ("prefix", "larger"):
        metrics = json.loads(Path(f"out/seed0/new/{method}/metrics.json").read_text())
        for key, cell in (
            ("self_test", (method, "new", "new")),
            ("cross_test", (method, "new", "old")),
            ("status_quo", ("independent", "old", "old")),
        ):
            assert found[cell]["mean_ap"] == pytest.approx(metrics[key]["mean_ap"])
    capsys.readouterr()
    command = ["evaluate", "--query", "out/seed0/new/prefix", "--gallery", "out/seed0/old/independent"]
    assert run([*command, "--data", "out/seed0/new/prefix/config.yaml", "--out", "alone.json"]) == 0
    alone = {(Path(each.query).parent.name, Path(each.gallery).parent.name): each.scores
             for each in read_report(Path("alone.json")).searches}  # fmt: skip
    assert alone["new", "old"] == pytest.approx(found["prefix", "new", "old"])
    unlabelled = yaml.safe_load(Path("out/seed0/new/prefix/config.yaml").read_text())
    del unlabelled["data"]["labels"]
    Path("unlabelled.yaml").write_text(yaml.safe_dump(unlabelled))
    assert run([*command, "--data", "new.yaml"]) == 2
    assert "independent: takes vectors of 10 values, but --data new.yaml has 14 values" in capsys.readouterr().err
    assert run([*command, "--data", "unlabelled.yaml"]) == 2
    assert "new.npy: no labels, or one class only: every answer would count as right" in capsys.readouterr().err
    np.save("labels.npy", labels[::-1])
    Path("new.yaml").write_text(Path("new.yaml").read_text().replace("labels.npy", "reversed.npy"))
    np.save("reversed.npy", labels)
    assert run(["run", "scenario.yaml", "--out", "again"]) == 2
    assert "the labels of the test rows differ" in capsys.readouterr().err
