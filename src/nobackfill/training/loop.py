"""The training loop, top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nobackfill.config import RunConfig
from nobackfill.data import open_loader
from nobackfill.data.loader import Loader, resized
from nobackfill.errors import RunError
from nobackfill.files import require_new, write_text
from nobackfill.models import Network, runfolder
from nobackfill.models.finished import finished_encoder
from nobackfill.progress import bar, note
from nobackfill.training.averaging import WeightAverage
from nobackfill.training.checkpoint import Position, newest, read_position, restore_checkpoint
from nobackfill.training.checkpointer import Checkpointer
from nobackfill.training.memory import keep_freed_memory
from nobackfill.training.pair_step import pair_gradients
from nobackfill.training.plan import RunPlan, make_plan
from nobackfill.training.precision import Precision, choose_precision
from nobackfill.training.processes import of_all_processes, start_processes, synchronise_batch_norm
from nobackfill.training.record import EpochRecord
from nobackfill.training.schedule import learning_rate
from nobackfill.training.setup import Setup, prepare
from nobackfill.training.start import make_optimizer, train_mode
from nobackfill.training.stopping import stop_signals
from nobackfill.training.summary import run_summary
from nobackfill.training.teachers import Teachers
from nobackfill.training.unfinished import (
    METRICS,
    DoneElsewhereError,
    check_same_data,
    check_same_finished_run,
    is_trained,
    publish,
    unfinished,
    working_folder,
)

LOOK_EVERY = 50  # steps between two looks at the loss; a look waits for the device


HistoryLine = dict[str, float]


def train(
    config: RunConfig, out: str | Path, *, resume: bool = False, on_epoch: Callable[[HistoryLine], None] | None = None
) -> Path:
    """Train one generation and write its run folder.

    While it runs everything is in `<out>.unfinished`, checkpoints included; at the end that folder is renamed to `out`.
    On a CPU, the same config and number of threads give the same weights, bit for bit, however often it was stopped.

    Args:
        config: the run; the method's defaults are filled in.
        out: folder to write, absent or empty.
        resume: continue `<out>.unfinished` from its newest checkpoint (start anew if there is none); nothing is left
            to do if `out` holds this very run already.
        on_epoch: called by the main process with each new line of the history.

    Returns:
        The run folder.

    Raises:
        NobackfillError: for anything wrong with config, data, teachers or folders, before training starts;
            `TrainingError` if the loss stops being finite, with the last good checkpoint kept; `StoppedError` after
            SIGINT or SIGTERM, with a checkpoint of the last step.
    """
    out = Path(out)
    plan = make_plan(config)
    if resume and runfolder.is_run(out):
        check_same_finished_run(out, plan)
        return out
    require_new(out)
    accelerator = start_processes(plan.config)
    device, main = accelerator.device, accelerator.is_main_process
    with contextlib.ExitStack() as stack:
        try:
            working = stack.enter_context(working_folder(out, plan, resume=resume)) if main else unfinished(out)
        except DoneElsewhereError:
            if accelerator.num_processes > 1:  # the others are past this point
                raise RunError(f"{out}: another process has just finished this run; nothing left to do") from None
            check_same_finished_run(out, plan)
            return out
        accelerator.wait_for_everyone()
        if not is_trained(working):
            stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
            _train(plan, accelerator, working, out, on_epoch)
            accelerator.wait_for_everyone()
        if main:
            publish(working, out)
    accelerator.wait_for_everyone()
    return out


def _train(
    plan: RunPlan,
    accelerator: Accelerator,
    working: Path,
    out: Path,
    on_epoch: Callable[[HistoryLine], None] | None,
) -> None:
    """From the seed to everything of the run folder in `working`, `metrics.json` last."""
    started, config, device = time.perf_counter(), plan.config, accelerator.device
    if device.type == "cpu":
        keep_freed_memory()
    precision, why = choose_precision(config.precision, device)
    torch.manual_seed(config.seed)
    setup = prepare(plan, accelerator)
    if accelerator.is_main_process:
        check_same_data(working, {**setup.digests(), "precision": precision})
    network: Network = setup.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    synchronise_batch_norm(config, network, accelerator)
    if config.compile:
        network.backbone.compile()
    wrapped, optimizer = accelerator.prepare(network, make_optimizer(config, network, precision))
    if accelerator.process_index:
        torch.manual_seed(config.seed + 2**32 * accelerator.process_index)  # each its own dropout
    average = WeightAverage(network, config.average) if config.average else None
    position, sums = _start(working, network, optimizer, accelerator, average)
    done = position.epoch * setup.steps + position.step
    title = f"{config.method} → {out.name}"
    if accelerator.is_main_process:
        note(f"{out}: {config.method} on {_device_name(accelerator)}, {precision} ({why})")
    with stop_signals() as stop, bar(title, config.epochs * setup.steps, done=done, log=True) as advance:
        checkpointer = Checkpointer(working, network, optimizer, accelerator, position, stop, average)
        for line in _epochs(setup, accelerator, wrapped, optimizer, precision, checkpointer, sums, advance):
            if on_epoch and accelerator.is_main_process:
                on_epoch(line)
    network.own = None

    if average:
        average.copy_to(network)
    tokenizer = None if plan.source is None else plan.source.tokenizer
    encoder = finished_encoder(network, config.method, plan.preprocessing, plan.prefixes, tokenizer)
    summary = {
        "seconds": round(position.seconds + time.perf_counter() - started, 2),
        "device": _device_name(accelerator),
        "precision": precision,
        **setup.start,
        **run_summary(setup, encoder, accelerator),
    }
    if accelerator.is_main_process:
        runfolder.save(encoder, working)
        write_text(working / METRICS, json.dumps(summary, indent=2) + "\n")


def _epochs(
    setup: Setup,
    accelerator: Accelerator,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    checkpointer: Checkpointer,
    sums: dict[str, Tensor],
    advance: Callable[[str], None],
) -> Iterator[HistoryLine]:
    """Every step from where the run was begun; checkpoints when one is due; yields each epoch's history.

    `sums` are those of the epoch under way.
    """
    plan, device, begun = setup.plan, accelerator.device, checkpointer.begun
    config, preprocessing = plan.config, plan.preprocessing
    loader = open_loader(setup.samples, preprocessing, config.data, device, resident=True)
    teachers = setup.teachers.to(device, rows=loader.resident)
    seen = math.nan
    for epoch in range(begun.epoch, config.epochs):
        train_mode(network)
        record = EpochRecord(epoch, accelerator, seen)
        if epoch == begun.epoch:
            record.steps, record.sums = begun.step, sums
        for batch in _batches(setup, loader, accelerator, epoch, record.steps):
            record.rate = learning_rate(config, epoch, record.steps, setup.steps)
            for group in optimizer.param_groups:
                group["lr"] = record.rate * group["fraction"]
            if setup.pairs is not None:
                at = [positions for positions, _ in batch]
                parts, masked = pair_gradients(
                    checkpointer.network, plan.method, setup.pairs, at, accelerator=accelerator, precision=precision
                )
                record.add(parts, 1)
                record.count("masked", masked)
            else:
                progress = (epoch * setup.steps + record.steps) / (config.epochs * setup.steps)
                for parts in _gradients(setup, accelerator, network, teachers, precision, batch, progress):
                    record.add(parts, 1 / len(batch))
            optimizer.step()
            optimizer.zero_grad()
            if checkpointer.average:
                checkpointer.average.update(checkpointer.network)
            record.step_done(sum(len(positions) for positions, _ in batch) * accelerator.num_processes)
            if record.steps % LOOK_EVERY == 0:
                record.check(newest(checkpointer.folder))
            advance(f"epoch {epoch + 1}/{config.epochs}  {record.state()}")
            if record.steps < setup.steps:
                checkpointer.after_step(record)
        record.check(newest(checkpointer.folder))
        record.check_weights(checkpointer.network, newest(checkpointer.folder))
        seen, line = record.seen, record.line()
        if accelerator.is_main_process:
            with (checkpointer.working / "history.jsonl").open("a", encoding="utf-8") as history:
                history.write(json.dumps(line) + "\n")
        yield line
        checkpointer.after_epoch(record)


def _gradients(
    setup: Setup,
    accelerator: Accelerator,
    network: nn.Module,
    teachers: Teachers,
    precision: Precision,
    batch: list[tuple[Tensor, Tensor]],
    progress: float,
) -> Iterator[dict[str, Tensor]]:
    """Add up the gradients of a batch's micro-batches; yields the parts of each one's loss.

    `progress` is the fraction of the run's steps that are done.
    """
    method, device = setup.plan.method, accelerator.device
    for number, (positions, views) in enumerate(batch, start=1):
        # Only the last micro-batch's pass asks the other processes for their gradients.
        with contextlib.nullcontext() if number == len(batch) else accelerator.no_sync(network):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                output = network(setup.plan.preprocessing.normalize(views))
            seen = dataclasses.replace(
                teachers.batch(positions, views),
                progress=progress,
                classifier=getattr(setup.network.head, "classifier", None),
                own=setup.network.own,
            )
            if method.whole_batch:
                output, seen = of_all_processes(accelerator, output, seen)
            parts = method.loss(output, seen)
            accelerator.backward(torch.stack(list(parts.values())).sum() / len(batch))
        yield parts


def _batches(
    setup: Setup, loader: Loader, accelerator: Accelerator, epoch: int, done: int
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The epoch's batches from step `done` on, as this process sees them: each a list of `accumulate` micro-batches.

    Which samples make a batch depends on (seed, epoch) alone. A micro-batch is a contiguous part of its batch.
    """
    config, count = setup.plan.config, len(setup.samples)
    order = np.random.default_rng([config.seed, epoch, 0]).permutation(count)[: setup.steps * setup.batch_size]
    processes, rank = accelerator.num_processes, accelerator.process_index
    own = order.reshape(setup.steps, config.accumulate, processes, -1)[done:, :, rank]
    size = setup.batch_size // (config.accumulate * processes)
    views = loader.training_views(own.reshape(-1), size, config.seed, epoch)
    if small := setup.plan.small_view(epoch):
        views = resized(views, small)
    while batch := list(itertools.islice(views, config.accumulate)):
        yield batch


def _start(
    working: Path,
    network: Network,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    average: WeightAverage | None,
) -> tuple[Position, dict[str, Tensor]]:
    """Restore the newest checkpoint, if there is one; returns where the run is and the sums of the epoch under way."""
    checkpoint, processes = newest(working / "checkpoint"), accelerator.num_processes
    position, sums = Position(processes=processes), {}
    if checkpoint:
        position = read_position(checkpoint)
        if position.processes != processes:
            raise RunError(
                f"{working}: was started with {position.processes} processes; resume with as many, not {processes}"
            )
        sums = restore_checkpoint(checkpoint, network, optimizer, accelerator.process_index, average)
    if accelerator.is_main_process:
        history = working / "history.jsonl"
        lines = history.read_text(encoding="utf-8").splitlines(keepends=True) if history.is_file() else []
        write_text(history, "".join(lines[: position.epoch]))
    accelerator.wait_for_everyone()
    return position, {name: value.to(accelerator.device) for name, value in sums.items()}


def _device_name(accelerator: Accelerator) -> str:
    several = f"{accelerator.num_processes} × " if accelerator.num_processes > 1 else ""
    return f"{several}{accelerator.device.type}"
