"""Checkpoints of an unfinished run: one folder an epoch, whole or absent, tensors and JSON only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nobackfill.errors import RunError
from nobackfill.files import whole_folder, write_text
from nobackfill.models.runfolder import write_tensors

KEPT = 2


def save_checkpoint(folder: Path, epoch: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state after `epoch` finished epochs and drop all but the newest two."""
    with whole_folder(folder / f"epoch-{epoch:05d}") as working:
        write_tensors(
            working / "state.safetensors",
            {
                **_copied("network", network.state_dict()),
                **_optimizer_tensors(optimizer),
                **{f"random.{device}": state for device, state in _random_states().items()},
            },
        )
        write_text(working / "state.json", json.dumps({"epoch": epoch}))
    for old in _whole(folder)[:-KEPT]:
        shutil.rmtree(old)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder, if there is one."""
    return next(reversed(_whole(folder)), None)


def restore_checkpoint(checkpoint: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put a checkpoint back into network, optimiser and random generators; returns the number of finished epochs.

    Raises:
        RunError: if the checkpoint is damaged.
    """
    try:
        tensors = load_file(checkpoint / "state.safetensors")
        epoch = int(json.loads((checkpoint / "state.json").read_text())["epoch"])
        network.load_state_dict(_section(tensors, "network"))
        _restore_optimizer(_section(tensors, "optimizer"), optimizer)
        _restore_random(_section(tensors, "random"))
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{checkpoint}: damaged checkpoint: {reason}; remove it to go on from the one before") from error
    return epoch


def _whole(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*")) if folder.is_dir() else []


def _copied(prefix: str, tensors: dict[str, Any]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory; a copy never does.
    return {f"{prefix}.{name}": tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        name: tensor
        for number, state in optimizer.state_dict()["state"].items()
        for name, tensor in _copied(f"optimizer.{number}", {k: v for k, v in state.items() if v is not None}).items()
    }


def _restore_optimizer(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            # Fused kernels walk through memory: a moment must lie there as its parameter does (channels last).
            placed = torch.empty_like(parameter, device="cpu", requires_grad=False).copy_(tensor)
        else:
            placed = tensor
        state.setdefault(int(number), {})[key] = placed
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states.update({f"cuda{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())})
    return states


def _restore_random(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda")))
