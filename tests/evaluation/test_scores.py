"""The table of scores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nobackfill
from nobackfill.evaluation import retrieval_metrics
from nobackfill.evaluation.scores import CUTOFFS, DECISIVE, FIT_SCORES, MAIN, SCORES, TABLE, title


def test_a_score_s_mean_is_the_metric_of_its_name() -> None:
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(60, 5)), random.integers(0, 40, 60)
    found = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True, topk=(1, 5, 10))
    assert 0 < found.without_match < 60
    named = {"top1": found.cmc[1], "top5": found.cmc[5], "top10": found.cmc[10], "mean_ap": found.mean_ap}
    named |= {"recall10": found.recall[10], "mrr": float(np.mean(1 / found.first_match[found.first_match > 0]))}
    for score in TABLE:
        values = found.per_query(score.key)
        assert (np.isnan(values) == (found.first_match == 0)).all()
        assert np.nanmean(values) == pytest.approx(named[score.key])
    assert found.scores() == pytest.approx({key: named[key] for key in SCORES})


def test_the_table_holds_what_reports_rely_on() -> None:
    keys = [score.key for score in TABLE]
    assert len(set(keys)) == len(keys)
    assert {MAIN, *DECISIVE} <= set(SCORES) & set(FIT_SCORES)
    assert CUTOFFS == (1, 5)
    assert title("mean_ap") == "mAP"
    assert title("of a later version") == "of a later version"


@pytest.mark.slow
def test_a_new_score_is_one_row(tmp_path: Path) -> None:
    package = tmp_path / "src" / "nobackfill"
    shutil.copytree(Path(nobackfill.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    table = package / "evaluation" / "scores.py"
    row = '    Score("recall3", "recall@3", lambda ranks: np.where(ranks.first > 0, '
    row += "ranks.hits[:, ranks.cutoffs.index(3)] / np.maximum(ranks.matches, 1), np.nan), cutoff=3),\n"
    start = table.read_text().index('    Score("mean_ap"')
    table.write_text(table.read_text()[:start] + row + table.read_text()[start:])
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 90)
    old = random.normal(size=(5, 6))[labels] + random.normal(size=(90, 6))
    new = old + 0.1 * random.normal(size=(90, 6))
    for name, array in {"old": old, "new": new, "labels": labels}.items():
        np.save(tmp_path / f"{name}.npy", array)
    expected = retrieval_metrics(new, old, labels, labels, exclude_self=True, topk=(3,)).recall[3]

    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", "nobackfill", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    arrays = ["--query", "new.npy", "--gallery", "old.npy", "--old-query", "old.npy", "--new-gallery", "new.npy"]
    known = ["--query-labels", "labels.npy", "--gallery-labels", "labels.npy", "--exclude-self"]
    printed = call("evaluate", *arrays, *known, "--out", "report.json")
    assert "recall@3 %" in printed
    assert f"{100 * expected:.1f}" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["searches"][1]["scores"]["recall3"] == pytest.approx(expected)
    assert report["upgrades"][0]["result"]["change"]["new/old"]["recall3"]["low"] < 1
    for name in ("page.html", "table.md"):
        call("report", "report.json", "--out", name)
        assert "recall@3" in (tmp_path / name).read_text()
