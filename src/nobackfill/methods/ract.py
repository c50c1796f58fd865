"""RACT, regression-alleviating compatible training of hot-refresh upgrades (ICLR 2022): InfoNCE across generations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method, Teacher, required
from nobackfill.models.heads import Head, PlainHead


class RACT(Method):
    """L = CE(W f, y) − λ·mean_i log(e^{b_i·o_i/τ} / (e^{b_i·o_i/τ} + Σ_j e^{b_i·o_j/τ} + Σ_j e^{b_i·b_j/τ})).

    b: the first d_o values of f, o: the old vector, both of unit norm; j: the samples of *other* classes whose terms
    are the largest, `hardest` of old and as many of new vectors (0: all). λ, τ = `old`, `temperature`. With old = 10,
    temperature = 1, hardest = 0 it is the "regularised" trainer that the BT² repository once had.
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old"})
    ties: ClassVar[tuple[str, ...]] = ("old",)
    loss_defaults: ClassVar[Mapping[str, float]] = {
        "old": 1.0,
        "temperature": 0.01,
        "hardest": 10,
        "label_smoothing": 0.0,
    }
    needs_labels: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    whole: ClassVar[frozenset[str]] = frozenset({"hardest"})

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return PlainHead(model.embedding_dim, classes, old_dim, **model.classifier)

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        weight, labels = self.constants, batch.labels
        b, old = normalize(output["compatible"]), normalize(required(batch.old))
        own = (b * old).sum(dim=1, keepdim=True)
        others = [of_other_classes(b @ each.T, labels, int(weight["hardest"])) for each in (old, b)]
        scores = torch.cat([own, *others], dim=1) / weight["temperature"]
        return {
            "labels": cross_entropy(output["logits"], labels, label_smoothing=weight["label_smoothing"]),
            "old": weight["old"] * cross_entropy(scores, torch.zeros_like(labels)),
        }


def of_other_classes(scores: Tensor, labels: Tensor, hardest: int) -> Tensor:
    """The `hardest` largest scores of each row [n, n] against samples of other classes, −∞ where a row has fewer.

    Args:
        scores: of sample i against sample j.
        labels: int64 [n].
        hardest: 0 gives all [n, n], those of the same class −∞.
    """
    kept = scores.masked_fill(labels[:, None] == labels[None, :], -math.inf)
    return torch.topk(kept, min(hardest, len(labels)), dim=1).values if hardest else kept
