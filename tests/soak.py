"""Many short runs, each killed at random moments and gone on with, until it is done: python -m tests.soak --runs 200

Every run has to end in the bytes of the run of the same config that was never stopped, in a folder that loads. Takes
about a quarter of an hour; not part of the test suite.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from nobackfill import load
from nobackfill.errors import NobackfillError
from tests.conftest import tiny_config
from tests.training import killing

SHAPES: list[dict[str, Any]] = [
    {"method": "independent", "epochs": 6},
    {"method": "bct", "epochs": 4, "optimizer__name": "adamw"},
    {"method": "bt2", "epochs": 4, "model__extra_dim": 2, "accumulate": 2},
    {"method": "bt2", "epochs": 3, "model__extra_dim": 2, "teacher_view": "same", "optimizer__name": "sgd"},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw, started = random.Random(arguments.seed), time.monotonic()
    counts = {"runs": 0, "starts": 0, "killed at random": 0, "killed in a write": 0, "disk full": 0, "corrupt": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NOBACKFILL_CACHE"] = str(folder / "cache")
        teachers = {"old": str(folder / "old"), "independent": str(folder / "new")}
        for teacher, dim in (("old", 4), ("new", 6)):
            assert killing.run(_tree("independent", model__embedding_dim=dim), folder / teacher) == 0
        straight = {}
        for number, shape in enumerate(SHAPES):
            settings = _tree(**shape, **_needed(shape["method"], teachers))
            assert killing.run(settings, folder / f"straight{number}") == 0
            straight[number] = settings, (folder / f"straight{number}" / "model.safetensors").read_bytes()
        for run in range(arguments.runs):
            settings, wanted = straight[run % len(SHAPES)]
            _until_done(settings, folder / f"run{run}", draw, counts)
            counts["runs"] += 1
            counts["corrupt"] += not _sound(folder / f"run{run}", wanted)
            print(f"\r{counts} after {time.monotonic() - started:.0f} s", end="", flush=True)
    print()


def _until_done(settings: dict[str, Any], out: Path, draw: random.Random, counts: dict[str, int]) -> None:
    while not out.exists():
        counts["starts"] += 1
        kind = draw.random()
        if kind < 0.2:
            counts["killed in a write"] += (
                killing.run(settings, out, kill_in_write=draw.randint(1, 8)) == -signal.SIGKILL
            )
        elif kind < 0.3:
            counts["disk full"] += killing.run(settings, out, disk=draw.randint(1000, 30_000)) == 2
        else:
            code = killing.kill_after(killing.start(settings, out), draw.uniform(0.05, 1.0))
            counts["killed at random"] += code == -signal.SIGKILL


def _sound(run: Path, wanted: bytes) -> bool:
    try:
        load(run)
    except NobackfillError:
        return False
    return (run / "model.safetensors").read_bytes() == wanted and not Path(f"{run}.unfinished").exists()


def _tree(method: str, **changes: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = tiny_config(method, **changes).model_dump(mode="json")
    return dumped


def _needed(method: str, teachers: dict[str, str]) -> dict[str, str]:
    return {key: teachers[key] for key in {"bct": ["old"], "bt2": ["old", "independent"]}.get(method, [])}


if __name__ == "__main__":
    main()
