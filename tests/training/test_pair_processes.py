"""Pairs in two processes: one loss over the whole batch, hard negatives of unequal number included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.training.test_processes import difference, launch
from tests.training.test_texts import config, root

from nobackfill.training import train

pytest.importorskip("transformers")
__all__ = ["root"]  # the fixture


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_equal_one(root: Path, tmp_path: Path, accumulate: int) -> None:
    """By SGD, as Adam would magnify the rounding of gradients near zero; the start is the fitted one."""
    settings = config(
        root, "prefix", "static", kind="pairs", init="fit", mine={"negatives": 60, "margin": 0.2}, data__negatives=[],
        optimizer={"name": "sgd", "lr": 0.5},
    )  # fmt: skip
    whole = train(settings, tmp_path / "whole")
    again = settings.model_copy(update={"accumulate": accumulate})
    done = launch(again, tmp_path, "two", tmp_path / "cache")  # an empty cache: both embed for the teachers
    assert done.returncode == 0, done.stderr
    assert "2 × cpu" in done.stdout
    assert 0 < difference(whole, tmp_path / "two") < 1e-5
    less = train(settings.model_copy(update={"epochs": 1}), tmp_path / "less")
    assert difference(whole, less) > 1e-3  # it moves
    lines = [json.loads((run / "history.jsonl").read_text().splitlines()[-1]) for run in (whole, tmp_path / "two")]
    for name in ("loss", "pairs", "cross", "old", "masked"):
        assert lines[0][name] == pytest.approx(lines[1][name], rel=1e-5)
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (whole, tmp_path / "two")]
    assert metrics[0]["mined"] == metrics[1]["mined"]
    assert metrics[0]["mined"]["negatives"] < 128 * 60  # unequal numbers
    for name in ("self_test", "cross_test", "status_quo"):
        assert metrics[0][name]["mrr"] == pytest.approx(metrics[1][name]["mrr"], abs=0.02)  # one swap of near ties
