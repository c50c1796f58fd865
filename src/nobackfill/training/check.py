"""A config tried without its data: the network built, one step on random images, what a whole run would cost."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from nobackfill.config import RunConfig
from nobackfill.data import SIZES, choose_classes, load_split
from nobackfill.errors import ConfigError, TrainingError
from nobackfill.methods import Batch, method_class
from nobackfill.models import Network, build_backbone
from nobackfill.models.runfolder import load_spec
from nobackfill.training.setup import resolve, teacher_keys

SMALL = 100_000_000  # multiply-accumulates of an image


@dataclass(frozen=True)
class Check:
    """What a config amounts to.

    Attributes:
        parameters: of backbone and head.
        macs: multiply-accumulates of one image, backbone, forward.
        dim: size of the embedding.
        steps: optimiser steps of one epoch; None where the size of the data set is not known without reading it.
        seconds_per_image: of one training step on this machine's CPU, without the optimiser, in float32.
        loss: the parts of one random step.
    """

    parameters: int
    macs: int
    dim: int
    steps: int | None
    epochs: int
    batch_size: int
    seconds_per_image: float
    loss: dict[str, float]

    @property
    def hours(self) -> float | None:
        """Of the whole run at that speed."""
        if self.steps is None:
            return None
        return self.steps * self.epochs * self.batch_size * self.seconds_per_image / 3600


def check_config(config: RunConfig) -> Check:
    """Build the model, run one random step, and estimate; needs neither the data nor the teachers.

    The old embedding's size comes from `model.old_dim`, or from the old run where it exists.

    Raises:
        ConfigError: for anything that would end training before its first step.
        TrainingError: if the random step gives a loss that is not finite.
    """
    config = resolve(config)
    method = method_class(config.method)(config.loss)
    vectors = load_split(config.data, "train") if config.data.name == "vectors" else None  # mapped: their sizes
    images, classes = _sizes(config) if vectors is None else (len(vectors), len(vectors.class_names))
    old_dim = _old_dim(config) if vectors is None or vectors.given is None else vectors.given.shape[1]
    size = config.data.image_size
    shape = (3, size, size) if vectors is None else np.asarray(vectors.images).shape[1:]
    options = {} if vectors is None else {"in_features": shape[0]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        head = method.head(config.model, old_dim, classes)
        backbone = build_backbone(config.model.backbone, head.in_features, options=options)
        network = Network(backbone, head, config.model.backbone, options)
        network.eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network.backbone(torch.randn(1, *shape))
        network.train()
        macs = counter.get_total_flops() // 2
        # One image of a small net is too short to time, one batch of a large one too long to wait for.
        for count in (2, 64 if macs < SMALL else 4):  # the first warms up
            started = time.perf_counter()
            output = network(torch.randn(count, *shape))
            parts = method.loss(output, _random_batch(old_dim, output, classes))
            total = torch.stack(list(parts.values())).sum()
            total.backward()  # type: ignore[no-untyped-call]
            seconds = (time.perf_counter() - started) / count
    if not total.isfinite():
        raise TrainingError(f"the loss of a random step is {float(total)}: {parts}")
    return Check(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs,
        dim=head.dim,
        steps=None if images is None else max(1, images // config.batch_size),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seconds_per_image=seconds,
        loss={name: float(value.detach()) for name, value in parts.items()},
    )


def _sizes(config: RunConfig) -> tuple[int | None, int]:
    """Training images (None: unknown) and training classes."""
    if config.data.name not in SIZES:
        if isinstance(config.data.classes, int):
            return config.data.train_limit, config.data.classes
        raise ConfigError(f"key 'data.classes': without reading {config.data.name!r}, a number of classes is needed")
    images, total = SIZES[config.data.name]
    classes = len(choose_classes(config.data, total))
    return min(images, config.data.train_limit or images) * classes // total, classes


def _old_dim(config: RunConfig) -> int:
    if not teacher_keys(config)["old"]:
        return 0
    if config.model.old_dim is not None:
        return config.model.old_dim
    if config.old is not None and config.old.is_dir():
        return load_spec(config.old).dim
    raise ConfigError(f"key 'model.old_dim': needed to check without the old run {config.old}")


def _random_batch(old_dim: int, output: dict[str, torch.Tensor], classes: int) -> Batch:
    count = len(output["self"])
    old = normalize(torch.randn(count, old_dim)) if old_dim else None
    return Batch(
        labels=torch.randint(classes, (count,)),
        old=old,
        independent=normalize(torch.randn_like(output["self"])),
        prototypes=0.5 * normalize(torch.randn(classes, old_dim)) if old_dim else None,
    )
