"""Kills, signals and full disks: what a run that was stopped leaves behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file
from tests.conftest import tiny_config
from tests.training import killing
from tests.training.killing import epochs, weights

from nobackfill.data import ImageSamples, load_split
from nobackfill.training.checkpoint import newest, read_position


def tree(**changes: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = tiny_config("independent", **changes).model_dump(mode="json")
    return dumped


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    config = tree(epochs=8)
    assert killing.run(config, tmp_path / "warm-up") == 0
    started = time.monotonic()
    assert killing.run(config, tmp_path / "straight") == 0
    whole, moments, kills = time.monotonic() - started, random.Random(0), 0
    while not (tmp_path / "run").exists():
        patience = whole * moments.uniform(0.2, 0.5) * 1.05**kills  # longer and longer, so that it gets done
        kills += killing.kill_after(killing.start(config, tmp_path / "run"), patience) == -signal.SIGKILL
    assert killing.run(config, tmp_path / "run") == 0
    assert kills > 0
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    assert epochs(tmp_path / "run") == list(range(1, 9))
    assert not (tmp_path / "run.unfinished").exists()


@pytest.mark.parametrize("number", [1, 4])
def test_killed_in_the_middle_of_a_checkpoint(tmp_path: Path, number: int) -> None:
    config = tree(epochs=2)
    assert killing.run(config, tmp_path / "straight") == 0
    assert killing.run(config, tmp_path / "run", kill_in_write=number) == -signal.SIGKILL
    checkpoints = tmp_path / "run.unfinished" / "checkpoint"
    assert any(path.name.startswith(".") for path in checkpoints.iterdir())  # the half that was written
    for path in checkpoints.glob("[0-9]*"):
        load_file(path / "state.safetensors")  # whole
    assert killing.run(config, tmp_path / "run") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")


def test_a_full_disk_is_said_and_costs_nothing(tmp_path: Path) -> None:
    config = tree(epochs=2)
    assert killing.run(config, tmp_path / "straight") == 0
    assert killing.run(config, tmp_path / "run", kill_in_write=3) == -signal.SIGKILL
    kept = newest(tmp_path / "run.unfinished" / "checkpoint")
    assert killing.run(config, tmp_path / "run", disk=20_000) == 2
    message = (tmp_path / "run.error").read_text()
    assert "state.safetensors: cannot be written: " in message
    assert kept
    assert newest(tmp_path / "run.unfinished" / "checkpoint") == kept
    assert (tmp_path / "run.unfinished" / "failure.txt").read_text().strip() == message
    assert killing.run(config, tmp_path / "run") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_and_keeps_it(tmp_path: Path, number: signal.Signals, code: int) -> None:
    config, run = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(tree(epochs=4000)))
    command = [sys.executable, "-m", "nobackfill", "train", str(config), "--out", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    history = tmp_path / "run.unfinished" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not (history.is_file() and history.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "run.unfinished: stopped after " in errors.splitlines()[-1]
    assert "--resume" in errors.splitlines()[-1]
    checkpoint = newest(tmp_path / "run.unfinished" / "checkpoint")
    assert checkpoint
    assert read_position(checkpoint).epoch >= 1


@pytest.mark.slow
def test_ctrl_c_reaches_the_workers_too_and_a_checkpoint_is_kept(tmp_path: Path) -> None:
    digits = load_split(tiny_config("independent").data, "train")
    assert isinstance(digits, ImageSamples)
    assert isinstance(digits.images, np.ndarray)
    for number in range(150):
        for split in ("train", "val"):
            folder = tmp_path / "photos" / split / str(digits.labels[number])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.images[number]).save(folder / f"{number:03d}.png")
    config, run = tmp_path / "run.yaml", tmp_path / "run"
    data = {"name": "folder", "root": str(tmp_path / "photos"), "image_size": 8, "workers": 2}
    config.write_text(yaml.safe_dump({**tree(epochs=4000), "data": data}))
    command = [sys.executable, "-m", "nobackfill", "train", str(config), "--out", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    history = tmp_path / "run.unfinished" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not (history.is_file() and history.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "--resume" in errors.splitlines()[-1]) == (130, True)
    assert newest(tmp_path / "run.unfinished" / "checkpoint")
