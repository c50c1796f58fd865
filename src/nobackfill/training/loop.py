"""The training loop, top to bottom."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor

from nobackfill.config import RunConfig, dump_config, load_config
from nobackfill.data.augment import draws
from nobackfill.data.loader import Loader
from nobackfill.errors import NobackfillError, RunError, TrainingError
from nobackfill.files import publish_folder, require_new, write_text
from nobackfill.models import Network, runfolder
from nobackfill.models.encoder import finished_encoder
from nobackfill.progress import bar
from nobackfill.training.checkpoint import newest, restore_checkpoint, save_checkpoint
from nobackfill.training.precision import choose_precision
from nobackfill.training.schedule import learning_rate
from nobackfill.training.setup import TEACHERS, Setup, prepare, resolve, teacher_fingerprints
from nobackfill.training.summary import run_summary

LOOK_EVERY = 50  # steps between two looks at the loss; a look waits for the device
CHECKPOINT_SHARE = 0.02  # of the time may go into checkpoints


def train(config: RunConfig, out: str | Path, *, resume: bool = False) -> Path:
    """Train one generation and write its run folder.

    While it runs everything is in `<out>.unfinished`, checkpoints included; at the end that folder is renamed to `out`.
    On a CPU, the same config and number of threads give the same weights, bit for bit.

    Args:
        config: the run; the method's defaults are filled in.
        out: folder to write, absent or empty.
        resume: go on with `<out>.unfinished` from its newest checkpoint (start anew if there is none).

    Returns:
        The run folder.

    Raises:
        NobackfillError: for anything wrong with config, data, teachers or folders, before training starts;
            `TrainingError` if the loss stops being finite, with the last good checkpoint kept.
    """
    config, out = resolve(config), Path(out)
    require_new(out)
    working = Path(f"{out}.unfinished")
    _check_unfinished(working, config, resume)
    # The config decides alone: the launcher's environment variables would change results behind its back.
    accelerator = Accelerator(
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
    )
    if accelerator.num_processes > 1:
        raise TrainingError(f"started as {accelerator.num_processes} processes, expected 1: start without a launcher")
    device, started = accelerator.device, time.perf_counter()
    precision, why = choose_precision(config.precision, device)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        setup = prepare(config, device)
        network: Network = setup.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network, optimizer = accelerator.prepare(network, _optimizer(config, network))
        done = _start(working, setup, network, optimizer)
        try:
            with bar(f"{config.method} → {out.name}", (config.epochs - done) * _steps(setup)) as advance:
                _epochs(setup, accelerator, network, optimizer, precision, working, done, advance)
        except NobackfillError:
            if newest(working / "checkpoint") is None:  # nothing in it to go on from
                shutil.rmtree(working)
            raise
        prefixes = setup.old.as_prefixes() if setup.old else ()
        encoder = finished_encoder(accelerator.unwrap_model(network), config.method, setup.preprocessing, prefixes)

    runfolder.save(encoder, working)
    summary = {
        "seconds": round(time.perf_counter() - started, 2),
        "device": str(device),
        "precision": f"{precision} ({why})",
        **run_summary(setup, encoder),
    }
    write_text(working / "metrics.json", json.dumps(summary, indent=2) + "\n")
    shutil.rmtree(working / "checkpoint", ignore_errors=True)
    publish_folder(working, out)
    return out


def _epochs(
    setup: Setup,
    accelerator: Accelerator,
    network: Network,
    optimizer: torch.optim.Optimizer,
    precision: str,
    working: Path,
    done: int,
    advance: Callable[[str], None],
) -> None:
    """Every epoch from number `done` on: batches, loss, step; a line of history each; a checkpoint now and then."""
    config, device, checkpoints = setup.config, accelerator.device, working / "checkpoint"
    loader = Loader(setup.images.images, setup.preprocessing, device, config.data.workers, resident=True)
    started, saving_seconds, seen = time.perf_counter(), 0.0, math.nan
    for epoch in range(done, config.epochs):
        rate = learning_rate(config, epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        network.train()
        losses = _Losses(epoch, rate, device, seen)
        for positions, views in _batches(setup, loader, epoch):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                output = network(views)
            parts = setup.method.loss(output, setup.teachers.batch(positions, device))
            accelerator.backward(torch.stack(list(parts.values())).sum())
            optimizer.step()
            optimizer.zero_grad()
            losses.add(parts, len(positions))
            if losses.steps % LOOK_EVERY == 0:
                losses.check(newest(checkpoints))
            loss = "" if math.isnan(losses.seen) else f"  loss {losses.seen:.3f}"
            advance(f"epoch {epoch + 1}/{config.epochs}{loss}")
        losses.check(newest(checkpoints))
        losses.check_weights(network, newest(checkpoints))
        seen = losses.seen
        with (working / "history.jsonl").open("a", encoding="utf-8") as history:
            history.write(json.dumps(losses.line()) + "\n")
        now = time.perf_counter()
        if epoch == 0 or saving_seconds < CHECKPOINT_SHARE * (now - started):
            save_checkpoint(checkpoints, epoch + 1, network, optimizer)
            saving_seconds += time.perf_counter() - now


class _Losses:
    """One epoch's loss: summed on the device, looked at by the host only now and then."""

    def __init__(self, epoch: int, rate: float, device: torch.device, seen: float) -> None:
        self.epoch, self.rate, self.steps, self.images, self.seen = epoch, rate, 0, 0, seen
        self.started = time.perf_counter()
        self.sums: dict[str, Tensor] = {}
        self.first_bad = torch.full((), -1, device=device)

    def add(self, parts: dict[str, Tensor], images: int) -> None:
        total = torch.stack(list(parts.values())).detach().sum()
        for name, value in {**parts, "loss": total}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.first_bad = torch.where((self.first_bad < 0) & ~total.isfinite(), self.steps, self.first_bad)
        self.steps += 1
        self.images += images

    def check(self, checkpoint: Path | None) -> None:
        self.seen = float(self.sums["loss"]) / self.steps
        if int(self.first_bad) >= 0:
            what = "NaN" if math.isnan(self.seen) else "infinite"
            raise self._fault(f"the loss became {what} at step {int(self.first_bad) + 1}", checkpoint)

    def check_weights(self, network: Network, checkpoint: Path | None) -> None:
        """The last step of an epoch can ruin the weights after a loss that was still fine."""
        values = [value for value in network.state_dict().values() if value.is_floating_point()]
        if not bool(torch.stack([value.isfinite().all() for value in values]).all()):
            raise self._fault("the weights became NaN or infinite at the end", checkpoint)

    def _fault(self, what: str, checkpoint: Path | None) -> TrainingError:
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "there was no checkpoint yet"
        return TrainingError(
            f"{what} of epoch {self.epoch + 1}, learning rate {self.rate:g}; lower optimizer.lr or lengthen "
            f"schedule.warmup_epochs; {kept}"
        )

    def line(self) -> dict[str, float]:
        """The epoch in `history.jsonl`: means of the parts and of their sum."""
        means = {name: round(float(value) / self.steps, 6) for name, value in self.sums.items()}
        speed = round(self.images / (time.perf_counter() - self.started), 1)
        return {"epoch": self.epoch + 1, "lr": self.rate, **means, "images_per_second": speed}


def _steps(setup: Setup) -> int:
    # A last, smaller batch is left out: batch norm would weigh its few images like a whole one.
    return max(1, len(setup.images) // setup.config.batch_size)


def _batches(setup: Setup, loader: Loader, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    config, count = setup.config, len(setup.images)
    order = np.random.default_rng([config.seed, epoch, 0]).permutation(count)[: _steps(setup) * config.batch_size]
    return loader.batches(order, config.batch_size, config.data.augment, draws(config.seed, epoch, count))


def _optimizer(config: RunConfig, network: Network) -> torch.optim.Optimizer:
    settings = config.optimizer
    options: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    match settings.name:
        case "sgd":
            return torch.optim.SGD(network.parameters(), momentum=0.9, **options)
        case "adamw":
            return torch.optim.AdamW(network.parameters(), **options)
        case "adam":
            return torch.optim.Adam(network.parameters(), **options)


def _check_unfinished(working: Path, config: RunConfig, resume: bool) -> None:
    if not working.exists():
        return
    if not resume:
        raise RunError(f"{working}: an unfinished run is there; go on with it by --resume, or remove it")
    if (working / "config.yaml").is_file():
        before = resolve(load_config(working / "config.yaml")).model_dump()
        changed = [key for key, value in config.model_dump().items() if before[key] != value]
        if changed:
            raise RunError(
                f"{working}: its config differs in {', '.join(map(repr, changed))}; a run goes on only as it was begun"
            )


def _start(working: Path, setup: Setup, network: Network, optimizer: torch.optim.Optimizer) -> int:
    """Make the working folder, or restore what is in it; returns the number of epochs already done."""
    working.mkdir(parents=True, exist_ok=True)
    teachers = teacher_fingerprints(setup.config)
    if (working / TEACHERS).is_file() and json.loads((working / TEACHERS).read_text()) != teachers:
        raise RunError(f"{working}: was begun with other teachers than those that are there now; remove it")
    write_text(working / "config.yaml", dump_config(setup.config))
    write_text(working / TEACHERS, json.dumps(teachers, indent=2) + "\n")
    checkpoint = newest(working / "checkpoint")
    done = restore_checkpoint(checkpoint, network, optimizer) if checkpoint else 0
    history = working / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True) if history.is_file() else []
    write_text(history, "".join(lines[:done]))
    return done
