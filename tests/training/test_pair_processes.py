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
def test_two_processes_equal_one(root: Path, tmp_path: Path) -> None:
    """By SGD, as Adam would magnify the rounding of gradients near zero; the start is the fitted one."""
    settings = config(
        root, "prefix", "static", kind="pairs", init="fit", mine={"negatives": 60, "margin": 0.2}, data__negatives=[],
        optimizer={"name": "sgd", "lr": 0.5},
    )  # fmt: skip
    whole = train(settings, tmp_path / "whole")
    less = train(settings.model_copy(update={"epochs": 1}), tmp_path / "less")
    assert difference(whole, less) > 1e-3  # it moves
    results = launch(tmp_path, {"two": settings, "in_parts": settings.model_copy(update={"accumulate": 2})})
    for name, done in results.items():
        assert done.returncode == 0, done.stderr
        assert "2 × cpu" in done.stdout
        run = tmp_path / name
        assert 0 < difference(whole, run) < 1e-5
        last, own_last = (json.loads((each / "history.jsonl").read_text().splitlines()[-1]) for each in (whole, run))
        for term in ("loss", "pairs", "cross", "old", "masked"):
            assert last[term] == pytest.approx(own_last[term], rel=1e-5)
        metrics, own = (json.loads((each / "metrics.json").read_text()) for each in (whole, run))
        assert metrics["mined"] == own["mined"]
        assert metrics["mined"]["negatives"] < 128 * 60  # unequal numbers
        for cell in ("self_test", "cross_test", "status_quo"):
            assert metrics[cell]["mrr"] == pytest.approx(own[cell]["mrr"], abs=0.02)  # one swap of near ties
