"""When a checkpoint is written: now and then, and when a signal says stop."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from nobackfill.training.averaging import WeightAverage
from nobackfill.training.checkpoint import Position, newest, random_states, save_checkpoint
from nobackfill.training.processes import agree, from_all
from nobackfill.training.record import EpochRecord
from nobackfill.training.stopping import Stop, StoppedError

SECONDS = 15.0  # at least so long between two checkpoints
FRACTION = 0.02  # of the time may go into checkpoints
AGREE_EVERY = 10  # steps between two questions to the other processes: each one costs a wait


class Checkpointer:
    """Decides after each step whether it is time for a checkpoint, or to stop."""

    def __init__(
        self,
        working: Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        begun: Position,
        stop: Stop,
        average: WeightAverage | None = None,
    ) -> None:
        self.folder, self.network, self.optimizer = working / "checkpoint", network, optimizer
        self.working, self.accelerator, self.begun, self.stop = working, accelerator, begun, stop
        self.average = average
        self.started = self.saved = time.perf_counter()
        self.cost = 0.0

    def after_step(self, record: EpochRecord) -> None:
        """Within an epoch; every process has to call it after every step."""
        if self.accelerator.num_processes == 1 or record.steps % AGREE_EVERY == 0:
            self._look(record.epoch, record.steps, record)

    def after_epoch(self, record: EpochRecord) -> None:
        """At its end, its history written."""
        self._look(record.epoch + 1, 0, record)

    def _look(self, epoch: int, step: int, record: EpochRecord) -> None:
        waited = time.perf_counter() - self.saved
        due = waited >= SECONDS and self.cost <= FRACTION * waited
        number, due_somewhere = agree(self.accelerator, self.stop.number, due)
        if number or due_somewhere:
            self._save(epoch, step, record)
        if number:
            where = f"after step {step} of epoch {epoch + 1}" if step else f"after epoch {epoch}"
            raise StoppedError(
                f"{self.working}: stopped {where}, with a checkpoint; the same command resumes "
                "(`nobackfill train` with --resume)",
                number,
            )

    def _save(self, epoch: int, step: int, record: EpochRecord) -> None:
        before = time.perf_counter()
        record.check(newest(self.folder))
        record.check_weights(self.network, newest(self.folder))
        seconds = round(self.begun.seconds + before - self.started, 2)
        position = Position(epoch, step, seconds, self.accelerator.num_processes)
        states, sums = from_all(self.accelerator, random_states()), record.shared_sums() if step else {}
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder, position, self.network, self.optimizer, sums, states, self.average)
        self.accelerator.wait_for_everyone()
        self.saved = time.perf_counter()
        self.cost = self.saved - before
