"""A batch in parts against the whole batch, and the number of processes that a run was begun with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.conftest import tiny_config

from nobackfill.config import RunConfig
from nobackfill.errors import ConfigError, RunError
from nobackfill.training import train
from nobackfill.training.checkpoint import newest


def config(runs: dict[str, Path], **changes: Any) -> RunConfig:
    """BT² with a net that has layer norm, by SGD: Adam would magnify the rounding of gradients near zero."""
    return tiny_config(
        "bt2",
        **{
            "old": str(runs["old"]),
            "independent": str(runs["new"]),
            "model__extra_dim": 2,
            "model__backbone": "test_convnext",
            "data__image_size": 32,
            "optimizer__name": "sgd",
            "optimizer__lr": 0.05,
            **changes,
        },
    )


def difference(first: Path, second: Path) -> float:
    one, two = (load_file(run / "model.safetensors") for run in (first, second))
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_equals_the_whole(tmp_path: Path, runs: dict[str, Path], parts: int) -> None:
    whole = train(config(runs), tmp_path / "whole")
    run = train(config(runs, accumulate=parts), tmp_path / "run")
    assert 0 < difference(whole, run) < 1e-5
    with pytest.raises(ConfigError, match="64 does not divide into 3 micro-batches"):
        train(config(runs, accumulate=3), tmp_path / "odd")


def test_a_run_goes_on_with_as_many_processes_as_it_was_begun_with(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nobackfill.training import checkpointer

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(checkpointer, "SECONDS", 0.0)
    monkeypatch.setattr(checkpointer, "FRACTION", float("inf"))
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("nobackfill.training.loop.run_summary", fail)
        train(tiny_config("independent"), tmp_path / "run")
    checkpoint = newest(tmp_path / "run.unfinished" / "checkpoint")
    assert checkpoint
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps({**state, "processes": 2}))
    with pytest.raises(RunError, match="was started with 2 processes; resume with as many, not 1"):
        train(tiny_config("independent"), tmp_path / "run", resume=True)
