"""Training runs in child processes that are stopped in the worst places; for the tests and for the soak."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))  # where a child finds this module
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["nobackfill.training", "timm", "sklearn.datasets", "torchvision.transforms.v2"])


def start(config: dict[str, Any], out: Path, **worst: Any) -> Any:
    """Train or go on with a run in a child process, with a checkpoint after every step.

    Args:
        config: of the run, as a tree.
        out: run folder.
        worst: `kill_in_write=n`, die in the middle of the n-th file of tensors; `disk=bytes`, a disk that takes no
            larger file; `seconds`, between two checkpoints.
    """
    process = CONTEXT.Process(target=_train, args=(config, str(out), worst))
    process.start()
    return process


def run(config: dict[str, Any], out: Path, **worst: Any) -> int:
    """As `start`, to its end; returns the exit code, negative for a signal."""
    process = start(config, out, **worst)
    process.join()
    code: int = process.exitcode
    return code


def kill_after(process: Any, seconds: float) -> int:
    """Wait so long, kill it if it still runs; returns the exit code."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    code: int = process.exitcode
    return code


def _train(config: dict[str, Any], out: str, worst: dict[str, Any]) -> None:
    import torch

    from nobackfill.config import parse_config
    from nobackfill.errors import NobackfillError
    from nobackfill.training import checkpoint, checkpointer, train

    torch.set_num_threads(1)
    checkpointer.SECONDS, checkpointer.FRACTION = worst.get("seconds", 0.0), math.inf
    if "kill_in_write" in worst:
        _die_in_write(checkpoint, worst["kill_in_write"])
    if "disk" in worst:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (worst["disk"], worst["disk"]))
    try:
        train(parse_config(config), out, resume=True)
    except NobackfillError as error:
        Path(f"{out}.error").write_text(str(error))
        sys.exit(error.code)


def _die_in_write(checkpoint: Any, number: int) -> None:
    """Half of the n-th file reaches the disk, in the very place where the real one is being written."""
    real, count = checkpoint.write_tensors, 0

    def write(path: Path, tensors: Any) -> None:
        nonlocal count
        count += 1
        real(path, tensors)
        if count == number:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    checkpoint.write_tensors = write


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def epochs(run: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (run / "history.jsonl").read_text().splitlines()]
