"""What runs a folder holds, and how far each is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from nobackfill.config import RunConfig, load_config
from nobackfill.errors import NobackfillError
from nobackfill.models.runfolder import SPEC, WEIGHTS, is_run
from nobackfill.training.checkpoint import newest, read_position
from nobackfill.training.unfinished import FAILURE, LOCK, METRICS

State = Literal["done", "training", "unfinished", "failed", "damaged"]


@dataclass(frozen=True)
class RunState:
    """One run folder.

    Attributes:
        path: as found under the folder that was asked for.
        state: `training`: a process is training it; `unfinished`: --resume continues it; `failed`: it ended in an
            error, which `reason` gives.
        method: of its config; None if that cannot be read.
        progress: share of its epochs that are done, 0–1.
        scores: self-test and cross-test of `metrics.json`, as far as there are any.
        seconds: spent on training.
        age: seconds since the folder last changed.
        reason: what went wrong.
    """

    path: Path
    state: State
    method: str | None
    progress: float
    scores: dict[str, dict[str, float]]
    seconds: float | None
    age: float
    reason: str | None = None


def find_runs(folder: Path) -> Iterator[RunState]:
    """All runs under a folder, by name; imported ones too."""
    places = {path.parent for name in ("config.yaml", "embedding.json") for path in folder.rglob(name)}
    for place in sorted(places):
        halves = (place / SPEC).exists() or (place / WEIGHTS).exists()
        if halves or place.name.endswith(".unfinished"):
            yield run_state(place)


def run_state(run: Path) -> RunState:
    """How far a run is; a folder that cannot be read is reported as `damaged`."""
    age, config = 0.0, None
    try:
        age = max(0.0, time.time() - max(path.stat().st_mtime for path in (run, *run.iterdir())))
        config = load_config(run / "config.yaml") if (run / "config.yaml").is_file() else None
        metrics = json.loads((run / METRICS).read_text()) if (run / METRICS).is_file() else {}
        scores = {name: metrics[name] for name in ("self_test", "cross_test") if name in metrics}
        method, seconds = config.method if config else metrics.get("method"), metrics.get("seconds")
        if is_run(run) and not run.name.endswith(".unfinished"):
            return RunState(run, "done", method, 1.0, scores, seconds, age)
        if not run.name.endswith(".unfinished"):
            missing = next(name for name in (SPEC, WEIGHTS) if not (run / name).is_file())
            return RunState(run, "damaged", method, 0.0, {}, None, age, f"{missing} is missing; train it again")
        progress, seconds = _progress(run, config)
    except (NobackfillError, OSError, ValueError, TypeError, AttributeError) as error:
        return RunState(run, "damaged", config.method if config else None, 0.0, {}, None, age, str(error))
    reason = (run / FAILURE).read_text(encoding="utf-8").strip() if (run / FAILURE).is_file() else None
    state: State = "training" if _in_use(run) else "failed" if reason else "unfinished"
    return RunState(run, state, method, progress, scores, seconds, age, reason)


def _progress(run: Path, config: RunConfig | None) -> tuple[float, float | None]:
    history = run / "history.jsonl"
    epochs = float(len(history.read_text(encoding="utf-8").splitlines())) if history.is_file() else 0.0
    checkpoint = newest(run / "checkpoint")
    seconds = read_position(checkpoint).seconds if checkpoint else None
    return (min(1.0, epochs / config.epochs) if config else 0.0), seconds


def _in_use(run: Path) -> bool:
    if not (run / LOCK).is_file():
        return False
    try:
        with FileLock(run / LOCK, blocking=False):
            return False
    except Timeout:
        return True
