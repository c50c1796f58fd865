"""A config tried without its data: the network built, one step on random samples, what a whole run would cost."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from nobackfill.config import RunConfig
from nobackfill.data import choose_classes
from nobackfill.errors import ConfigError, TrainingError
from nobackfill.methods import Batch, Method, PairBatch, PairMethod
from nobackfill.models import Network
from nobackfill.training.plan import RunPlan, plan_without_teachers
from nobackfill.training.setup import build_network, try_network
from nobackfill.training.start import train_mode

SMALL = 100_000_000  # multiply-accumulates of a sample


@dataclass(frozen=True)
class Check:
    """What a config amounts to.

    Attributes:
        parameters: of backbone and head.
        macs: multiply-accumulates of one sample, backbone, forward.
        dim: size of the embedding.
        steps: optimiser steps of one epoch; None where the size of the data set is not known without reading it.
        seconds_per_sample: of one training step on this machine's CPU, without the optimiser, in float32; the mean over
            the epochs.
        loss: the parts of one random step.
    """

    parameters: int
    macs: int
    dim: int
    steps: int | None
    epochs: int
    batch_size: int
    seconds_per_sample: float
    loss: dict[str, float]

    @property
    def hours(self) -> float | None:
        """Of the whole run at that speed."""
        if self.steps is None:
            return None
        return self.steps * self.epochs * self.batch_size * self.seconds_per_sample / 3600


def check_config(config: RunConfig) -> Check:
    """Build the model, run one random step, and estimate; needs neither the data nor the teachers.

    The old embedding's size comes from `model.old_dim`, or from the old run where it exists.

    Raises:
        ConfigError: for anything that would end training before its first step.
        TrainingError: if the random step gives a loss that is not finite.
    """
    plan = plan_without_teachers(config)
    config, method, preprocessing, old_dim = plan.config, plan.method, plan.preprocessing, plan.old_dim
    samples, classes = _sizes(plan)
    batch_size = config.batch_size if samples is None else min(config.batch_size, max(1, samples))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network(plan, classes, weights=False)
        try_network(plan, network)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network.backbone(preprocessing.random_inputs(1))
        train_mode(network)
        macs = counter.get_total_flops() // 2
        seconds: list[float] = []
        for view in plan.views:
            # One sample of a small net is too short to time, one batch of a large one too long to wait for.
            for count in (2, 64 if macs < SMALL else 4):  # the first warms up
                started = time.perf_counter()
                if isinstance(method, PairMethod):  # the texts of both sides pass the network: twice the work of one
                    output = network(view.random_inputs(2 * count))
                    queries, documents = ({name: each[half::2] for name, each in output.items()} for half in (0, 1))
                    parts = method.pair_loss(queries, documents, _random_pairs(old_dim, queries))
                else:
                    output = network(view.random_inputs(count))
                    parts = method.loss(output, _random_batch(method, old_dim, output, classes, network))
                total = torch.stack(list(parts.values())).sum()
                total.backward()  # type: ignore[no-untyped-call]
                spent = (time.perf_counter() - started) / count
            seconds.append(spent)
    if not total.isfinite():
        raise TrainingError(f"the loss of a step on random data is {float(total)}: {parts}")
    return Check(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs,
        dim=network.head.dim,
        steps=None if samples is None else max(1, samples // batch_size),
        epochs=config.epochs,
        batch_size=batch_size,
        seconds_per_sample=mean_of_epochs(plan, seconds),
        loss={name: float(value.detach()) for name, value in parts.items()},
    )


def mean_of_epochs(plan: RunPlan, seconds: list[float]) -> float:
    """The mean over the epochs, of which early ones may see the last, smaller view."""
    epochs, small = plan.config.epochs, plan.small_epochs
    return (seconds[0] * (epochs - small) + seconds[-1] * small) / epochs


def _sizes(plan: RunPlan) -> tuple[int | None, int]:
    """Training samples (None: unknown) and training classes."""
    data, count, total = plan.config.data, plan.data.count, plan.data.classes
    if count is None or total is None:
        if isinstance(data.classes, int):
            return data.train_limit, data.classes
        raise ConfigError(f"key 'data.classes': `check` does not read {data.name!r}; give a number of classes")
    classes = len(choose_classes(data, total))
    count -= data.holdout or 0
    return min(count, data.train_limit or count) * classes // total, classes


def _random_batch(
    method: Method, old_dim: int, output: dict[str, torch.Tensor], classes: int, network: Network
) -> Batch:
    count = len(output["new"])
    old = normalize(torch.randn(count, old_dim)) if old_dim else None
    labels = torch.randint(classes, (count,))
    needed = method.needed  # and no more, as in training
    return Batch(
        labels=labels,
        old=old if "old" in needed else None,
        independent=normalize(torch.randn_like(output["new"])) if "independent" in needed else None,
        prototypes=0.5 * normalize(torch.randn(classes, old_dim)) if old_dim and "prototypes" in needed else None,
        statistics=method.statistics(old, labels, classes) if old is not None else {},
        classifier=getattr(network.head, "classifier", None),
        own=network.own,
    )


def _random_pairs(old_dim: int, queries: dict[str, torch.Tensor]) -> PairBatch:
    count = len(queries["new"])
    old = normalize(torch.randn(count, old_dim)) if old_dim else None
    independent = normalize(torch.randn_like(queries["new"]))
    return PairBatch(torch.eye(count, dtype=torch.bool), old, old, independent, independent)
