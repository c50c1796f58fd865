"""One epoch's figures: summed on the device, looked at by the host only now and then."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nobackfill.errors import TrainingError


class EpochRecord:
    """Sums of an epoch's losses, and whether they stayed finite.

    Attributes:
        epoch: its number, from 0.
        rate: learning rate of the latest step.
        steps: optimiser steps done, of all processes together.
        seen: mean loss when last looked at; NaN before.
        sums: name of a part of the loss → sum over micro-batches, float32 scalar on the device; of this process alone.
    """

    def __init__(self, epoch: int, accelerator: Accelerator, seen: float = math.nan) -> None:
        self.epoch, self.rate, self.accelerator, self.seen = epoch, 0.0, accelerator, seen
        self.steps, self.images, self.started = 0, 0, time.perf_counter()
        self.sums: dict[str, Tensor] = {}
        self.first_bad = torch.full((), -1.0, device=accelerator.device)

    def add(self, parts: dict[str, Tensor], fraction: float) -> None:
        """The loss of a micro-batch that is this fraction of its batch. Nothing waits for the device."""
        total = torch.stack(list(parts.values())).detach().sum()
        for name, value in {**parts, "loss": total}.items():
            before = self.sums.get(name)
            self.sums[name] = value.detach() * fraction + (0 if before is None else before)
        self.first_bad = torch.where((self.first_bad < 0) & ~total.isfinite(), float(self.steps), self.first_bad)

    def count(self, name: str, number: int) -> None:
        """Something that was counted in a step; the history has its mean over the steps."""
        before = self.sums.get(name, torch.zeros((), device=self.accelerator.device))
        self.sums[name] = before + number

    def step_done(self, images: int) -> None:
        """The optimiser has made a step on so many images."""
        self.steps += 1
        self.images += images

    def check(self, checkpoint: Path | None) -> None:
        """Look at the loss, waiting for the device and the other processes; raises `TrainingError` if not finite."""
        self.seen = self._means()["loss"]  # of all processes, so that all of them stop
        if not math.isfinite(self.seen):
            what = "NaN" if math.isnan(self.seen) else "infinite"
            at = f" at step {int(self.first_bad) + 1}" if float(self.first_bad) >= 0 else ""
            raise self._fault(f"the loss became {what}{at}", checkpoint)

    def check_weights(self, network: nn.Module, checkpoint: Path | None) -> None:
        """A step can ruin the weights after a loss that was still fine; raises `TrainingError` then."""
        values = [value for value in network.state_dict().values() if value.is_floating_point()]
        if not bool(torch.stack([value.isfinite().all() for value in values]).all()):
            raise self._fault("the weights became NaN or infinite at the end", checkpoint)

    def line(self) -> dict[str, float]:
        """The epoch in `history.jsonl`: means of the parts and of their sum, speed, memory at its highest."""
        speed = self.images / (time.perf_counter() - self.started)
        means = {name: round(value, 6) for name, value in self._means().items()}
        return {
            "epoch": self.epoch + 1,
            "lr": self.rate,
            **means,
            "images_per_second": round(speed, 1),
            "memory_mb": round(peak_memory(self.accelerator.device)),
        }

    def state(self) -> str:
        """A few words for the progress bar."""
        if math.isnan(self.seen):
            return ""
        speed = self.images / (time.perf_counter() - self.started)
        return f"loss {self.seen:.3f}  {speed:,.0f} samples/s"

    def shared_sums(self) -> dict[str, Tensor]:
        """The sums as if every process had seen what all of them have; every process has to ask."""
        return dict(zip(self.sums, self._mean_sums(), strict=True))

    def _mean_sums(self) -> Tensor:
        sums = torch.stack(list(self.sums.values()))
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, "mean")
        return sums

    def _means(self) -> dict[str, float]:
        """Over all steps and processes; every process has to ask."""
        means = self._mean_sums() / max(1, self.steps)
        return dict(zip(self.sums, means.tolist(), strict=True))

    def _fault(self, what: str, checkpoint: Path | None) -> TrainingError:
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "there was no checkpoint yet"
        return TrainingError(
            f"{what} of epoch {self.epoch + 1}, learning rate {self.rate:g}; lower optimizer.lr or lengthen "
            f"schedule.warmup_epochs; {kept}"
        )


def peak_memory(device: torch.device) -> float:
    """MiB in use at most so far: of the GPU where there is one, else of this process (Windows does not tell: 0)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return 0.0
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
