"""Methods with different numbers of seeds in one table, from runs that are there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nobackfill.cli.app import run
from nobackfill.reports.document import read_report

RUN: dict[str, Any] = {
    "data": {"name": "digits", "image_size": 8, "train_limit": 120},
    "model": {"backbone": "smallnet8", "embedding_dim": 6},
    "schedule": {"warmup_epochs": 0},
    "epochs": 1,
    "batch_size": 60,
    "precision": "fp32",
}


def write(methods: dict[str, Any]) -> None:
    for name in ("independent", "bct"):
        Path(f"{name}.yaml").write_text(yaml.safe_dump({**RUN, "method": name}))
    lineage = {"old": {"independent": "independent.yaml"}, "new": {"independent": "independent.yaml", **methods}}
    Path("scenario.yaml").write_text(yaml.safe_dump({"generations": lineage, "seeds": 1}, sort_keys=False))


@pytest.mark.train
def test_seeds_are_added_to_some_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = {"config": "bct.yaml", "set": ["loss.prototypes=1"]}
    write({"bct": "bct.yaml", "weak": changed})
    assert run(["run", "scenario.yaml", "--out", "out"]) == 0
    assert "seeds" not in capsys.readouterr().out.replace("one seed", "")
    stamp = Path("out/seed0/new/bct/model.safetensors").stat().st_mtime_ns

    assert run(["run", "scenario.yaml", "--seeds", "3", "--methods", "bct", "--out", "out"]) == 0
    assert read_report(Path("out")).seeds == {"independent": 3, "bct": 3}
    assert not Path("out/seed1/new/weak").exists()
    assert Path("out/seed0/new/bct/model.safetensors").stat().st_mtime_ns == stamp
    trained = sorted(Path("out").glob("seed*/*/*/model.safetensors"))
    capsys.readouterr()

    write({"bct": "bct.yaml", "weak": {**changed, "seeds": 1}})
    assert run(["run", "scenario.yaml", "--seeds", "3", "--out", "out"]) == 0
    assert sorted(Path("out").glob("seed*/*/*/model.safetensors")) == trained  # all there already
    printed = capsys.readouterr().out
    assert "mean ± standard deviation over 3 seeds (1 of weak)" in printed
    report = read_report(Path("out"))
    assert report.seeds == {"independent": 3, "bct": 3, "weak": 1}
    assert {upgrade.method: upgrade.result.seeds for upgrade in report.upgrades} == report.seeds
    by_method = {line.method: line for line in report.cells if (line.score, line.gallery) == ("top1", "old")}
    for method, line in by_method.items():
        values = [
            search.scores["top1"]
            for search in report.searches
            if search.method == method and (search.query, search.gallery) == (line.query, line.gallery)
        ]
        assert line.value.seeds == len(values) == report.seeds[method]
        assert line.value.mean == pytest.approx(np.mean(values))
    for section in report.rankings:
        pairs = {frozenset((pair.method, pair.against)): pair.seeds for pair in section.ranking.pairs}
        assert pairs == {
            frozenset(("independent", "bct")): 3,
            frozenset(("independent", "weak")): 1,
            frozenset(("bct", "weak")): 1,
        }
    for name in ("table.md", "page.html"):
        assert run(["report", "out", "--out", name]) == 0
    lines = [line.split(" | ") for line in Path("table.md").read_text().splitlines() if "new/old |" in line]
    assert {line[0].strip("| "): line[-1].strip("| ") for line in lines} == {
        "independent": "3",
        "bct": "3",
        "weak": "1",
    }
    assert run(["run", "scenario.yaml", "--methods", "btc", "--out", "out"]) == 2
    assert "no method 'btc'" in capsys.readouterr().err


@pytest.mark.train
def test_a_method_starts_from_the_independent_model_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write({"warm": {"config": "bct.yaml", "start": "independent"}})
    assert run(["run", "scenario.yaml", "--out", "out"]) == 0
    metrics = json.loads(Path("out/seed0/new/warm/metrics.json").read_text())
    assert Path(metrics["init_from"]["run"]) == Path("out/seed0/new/independent")
    assert metrics["init_from"]["tensors_taken"] > 0
    Path("scenario.yaml").write_text(Path("scenario.yaml").read_text().replace("start: independent", "start: nothing"))
    assert run(["run", "scenario.yaml", "--out", "other"]) == 2
    assert "'old' or 'independent'" in capsys.readouterr().err
