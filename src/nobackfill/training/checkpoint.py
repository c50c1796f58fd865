"""Checkpoints of an unfinished run: one folder each, whole or absent, tensors and JSON only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nobackfill.errors import RunError, one_line
from nobackfill.files import atomic_folder, write_text
from nobackfill.models.runfolder import write_tensors
from nobackfill.training.averaging import WeightAverage

KEPT = 2


@dataclass(frozen=True)
class Position:
    """How far a run is.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the epoch under way.
        seconds: spent on them so far, over all starts.
        processes: that train together; the random numbers of each are kept.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    processes: int = 1


def save_checkpoint(
    folder: Path,
    position: Position,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    sums: dict[str, Tensor],
    random: list[dict[str, Tensor]],
    average: WeightAverage | None = None,
) -> None:
    """Write the state at a position and drop all but the newest two.

    Args:
        folder: of all checkpoints of the run.
        position: names the checkpoint.
        network: unwrapped, so that names do not depend on how it is trained.
        optimizer: its state goes by the number of the parameter.
        sums: what the epoch under way has summed up so far.
        random: by process, its `random_states`.
        average: of the weights, where one is kept.
    """
    with atomic_folder(folder / f"{position.epoch:05d}-{position.step:08d}") as working:
        write_tensors(
            working / "state.safetensors",
            {
                **_copied("network", network.state_dict()),
                **_optimizer_tensors(optimizer),
                **_copied("sums", sums),
                **_copied("average", average.state() if average else {}),
                **{
                    f"random.{rank}.{device}": state
                    for rank, states in enumerate(random)
                    for device, state in states.items()
                },
            },
        )
        write_text(working / "state.json", json.dumps(position.__dict__))
    for old in _whole(folder)[:-KEPT]:
        shutil.rmtree(old)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder, if there is one."""
    return next(reversed(_whole(folder)), None)


def read_position(checkpoint: Path) -> Position:
    """How far the run was; raises `RunError` if the checkpoint is damaged."""
    try:
        return Position(**json.loads((checkpoint / "state.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(checkpoint, error) from error


def restore_checkpoint(
    checkpoint: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int,
    average: WeightAverage | None = None,
) -> dict[str, Tensor]:
    """Put a checkpoint back into network, optimiser, average of the weights and this process's random generators.

    Returns:
        The sums of the epoch under way.

    Raises:
        RunError: if the checkpoint is damaged.
    """
    try:
        tensors = load_file(checkpoint / "state.safetensors")
        network.load_state_dict(_section(tensors, "network"))
        _restore_optimizer(_section(tensors, "optimizer"), optimizer)
        restore_random(_section(tensors, f"random.{rank}"))
        if average:
            average.restore(_section(tensors, "average"))
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, IndexError) as error:
        raise _damaged(checkpoint, error) from error
    return _section(tensors, "sums")


def random_states() -> dict[str, Tensor]:
    """The state of the random generator of every device, by the device's name."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states.update({f"cuda{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())})
    return states


def _damaged(checkpoint: Path, error: Exception) -> RunError:
    reason = one_line(error, 200)
    return RunError(f"{checkpoint}: damaged checkpoint: {reason}; remove it to resume from the previous one")


def _whole(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*")) if folder.is_dir() else []


def _copied(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory; a copy never does.
    return {f"{prefix}.{name}": tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        name: tensor
        for number, state in optimizer.state_dict()["state"].items()
        # Muon also notes which rule it follows for a parameter; that it finds out again by itself.
        for name, tensor in _copied(
            f"optimizer.{number}", {key: value for key, value in state.items() if isinstance(value, Tensor)}
        ).items()
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


def restore_random(states: dict[str, Tensor]) -> None:
    """Put back what `random_states` returned."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda")))
