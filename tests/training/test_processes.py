"""Two processes, and a batch in parts, against one process with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
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


def launch(folder: Path, runs: dict[str, RunConfig]) -> dict[str, subprocess.CompletedProcess[str]]:
    """`nobackfill train` as two processes for each config, by the names of their folders.

    The first finds an empty cache, so that both processes embed for the teachers.
    """
    paths = [folder / f"{name}.yaml" for name in runs]
    for path, settings in zip(paths, runs.values(), strict=True):
        path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(Path(__file__).with_name("several_runs.py"))]
    environment = {**os.environ, "NOBACKFILL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, paths)], check=False, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    results = {}
    for path in paths:
        out, err, codes = ([path.with_suffix(f".{name}{rank}").read_text() for rank in (0, 1)]
                           for name in ("out", "err", "code"))  # fmt: skip
        assert codes[0] == codes[1]
        results[path.stem] = subprocess.CompletedProcess([path.stem], int(codes[0]), "".join(out), "".join(err))
    return results


def difference(first: Path, second: Path) -> float:
    one, two = (load_file(run / "model.safetensors") for run in (first, second))
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path, runs: dict[str, Path]) -> None:
    settings = config(runs)
    whole = train(settings, tmp_path / "whole")
    refused = {"odd": config(runs, batch_size=63), "norms": config(runs, model__backbone="smallnet8")}
    results = launch(tmp_path, {"two": settings, **refused})
    done, odd, norms = results.values()
    assert done.returncode == 0, done.stderr
    assert "2 × cpu" in done.stdout
    assert done.stdout.count("trained in") == 1  # one process speaks
    assert 0 < difference(whole, tmp_path / "two") < 1e-5
    lines = [json.loads((run / "history.jsonl").read_text()) for run in (whole, tmp_path / "two")]
    for name in ("loss", "labels", "independent", "prototypes", "old"):
        assert lines[0][name] == pytest.approx(lines[1][name], rel=1e-5)  # gathered from both
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (whole, tmp_path / "two")]
    assert metrics[0]["status_quo"] == pytest.approx(metrics[1]["status_quo"], abs=1e-6)  # no padded duplicates
    for name in ("self_test", "cross_test"):
        assert metrics[0][name]["mean_ap"] == pytest.approx(metrics[1][name]["mean_ap"], abs=2e-3)
    assert odd.returncode == norms.returncode == 2
    assert "'batch_size': 63 does not divide into 2 processes × 1 micro-batches" in odd.stderr
    assert "the batch norm of 'smallnet8' cannot be synchronised on 'cpu'; set it to false" in norms.stderr


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
