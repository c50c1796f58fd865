"""AdvBCT (CVPR 2023): a discriminator that cannot tell new vectors from old ones, and a radius for each old class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method, Teacher, required
from nobackfill.methods.classes import by_class, class_centres, largest_usual
from nobackfill.models.heads import Head, PlainHead

HIDDEN = 100  # units of the discriminator


class AdvBCT(Method):
    """L = CE(W f, y) + β·L_b + γ·(1 − p)·(CE(D(R_α(b)), 0) + CE(D(o), 1)), p: the share of training that is done.

    b: the first d_o values of f, o: the old vector, both of unit norm. R_α passes b on and turns its gradient round
    (times −α, α = 2/(1 + e^{−10p}) − 1), so D learns to tell the models apart while b learns to escape it. L_b: the
    mean of ‖b − c_y‖ − r_y over the samples outside their radius r_y = r_max + σ(w_y)·(1 − r_max); c_y: the old class
    mean; r_max: the largest old distance to it that is no outlier; w_y is learned. β, γ = `boundary`, `adversary`.
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old", "statistics"})
    ties: ClassVar[tuple[str, ...]] = ("boundary", "adversary")
    loss_defaults: ClassVar[Mapping[str, float]] = {"boundary": 1.0, "adversary": 1.0, "label_smoothing": 0.0}
    needs_labels: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return PlainHead(model.embedding_dim, classes, old_dim, **model.classifier)

    def modules(self, model: ModelConfig, old_dim: int, classes: int) -> nn.Module:  # noqa: ARG002
        """The discriminator and the radii."""
        return Adversary(old_dim, classes)

    def statistics(self, old: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
        """`centre` [classes, d_o], means; `radius` [classes], NaN for a class with fewer than two vectors."""
        centre, radius = class_centres(old, labels, classes), torch.full((classes,), torch.nan)
        for number, members in by_class(old, labels, classes):
            if len(members) > 1:
                radius[number] = largest_usual(torch.linalg.vector_norm(members - centre[number], dim=1))
        return {"centre": centre, "radius": radius}

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        weight, labels, own = self.constants, batch.labels, required(batch.own)
        assert isinstance(own, Adversary)  # noqa: S101 (`modules` made it)
        b, old = normalize(output["compatible"]), normalize(required(batch.old))
        radius = batch.statistics["radius"][labels]
        outside = torch.linalg.vector_norm(b - batch.statistics["centre"][labels], dim=1)
        outside = outside - own.widened(radius.nan_to_num(), labels)
        counted = radius.isfinite() & (outside > 0)
        told_apart = own.told_apart(b, old, 2 / (1 + math.exp(-10 * batch.progress)) - 1)
        return {
            "labels": cross_entropy(output["logits"], labels, label_smoothing=weight["label_smoothing"]),
            "boundary": weight["boundary"] * (outside * counted).sum() / counted.sum().clamp(min=1),
            "adversary": weight["adversary"] * (1 - batch.progress) * told_apart,
        }


class Adversary(nn.Module):
    """AdvBCT's discriminator and its learnable radii."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.discriminator = nn.Sequential(
            nn.Linear(dim, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)
        )
        self.radii = nn.Parameter(torch.empty(classes).uniform_(-1, 1))

    def widened(self, radius: Tensor, labels: Tensor) -> Tensor:
        """r_y of samples [n] from their class's old radius [n]: towards 1, from either side."""
        share: Tensor = self.radii[labels].sigmoid()
        return radius + share * (1 - radius)

    def told_apart(self, new: Tensor, old: Tensor, strength: float) -> Tensor:
        """The discriminator's loss on new and old vectors [n, d_o]; `new` gets its gradient times −`strength`."""
        logits = [self.discriminator(Reversed.apply(new, strength)), self.discriminator(old)]
        labels = torch.zeros(len(new), dtype=torch.int64, device=new.device)
        return cross_entropy(logits[0], labels) + cross_entropy(logits[1], labels + 1)


class _Context(Protocol):
    strength: float


class Reversed(torch.autograd.Function):
    """The identity, with its gradient times −strength (gradient reversal, arXiv 1409.7495)."""

    @staticmethod
    def forward(ctx: _Context, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None
