"""UniBCT, universal backward-compatible training (IJCAI 2022): a margin softmax against refined old class centres."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nobackfill.config import ModelConfig
from nobackfill.errors import ConfigError
from nobackfill.methods.base import Batch, Method, Teacher
from nobackfill.methods.classes import by_class
from nobackfill.models.heads import Head, PlainHead

MOST = 4096  # vectors of a class that are refined together; a larger class is cut into parts
NEARLY_ONE = 1 - 1e-6


class UniBCT(Method):
    """L = CE(W f, y) + λ·CE(margin softmax of cos(b, ĉ), y); its target logit is s·cos(θ_y + m), the others s·cos θ_c.

    b: the first d_o values of f. ĉ_c: mean of the class's old vectors after they have been spread over a graph of
    nearest neighbours, Ô = (1 − γ)(I − γA)⁻¹ O, which draws outliers in. λ, s, m, γ = `centres`, `scale`, `margin`,
    `spread`; A: see `refined`, with `neighbours` and `temperature`. The paper takes the graph from the new model in
    mid-training; here it is that of the old vectors, computed once.
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"statistics"})
    ties: ClassVar[tuple[str, ...]] = ("centres",)
    loss_defaults: ClassVar[Mapping[str, float]] = {
        "centres": 1.0,
        "scale": 30.0,
        "margin": 0.3,
        "spread": 0.9,
        "neighbours": 10,
        "temperature": 0.05,
        "label_smoothing": 0.0,
    }
    needs_labels: ClassVar[bool] = True
    at_most_one: ClassVar[frozenset[str]] = frozenset({"label_smoothing", "spread"})
    above_zero: ClassVar[frozenset[str]] = Method.above_zero | {"scale", "neighbours"}
    whole: ClassVar[frozenset[str]] = frozenset({"neighbours"})

    def __init__(self, loss: Mapping[str, float]) -> None:
        super().__init__(loss)
        if self.constants["spread"] == 1:
            raise ConfigError("key 'loss.spread': expected a value below 1, found 1")

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return PlainHead(model.embedding_dim, classes, old_dim, **model.classifier)

    def statistics(self, old: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
        """`centre` [classes, d_o] of unit norm, 0 for a class without a vector."""
        centres, weight = torch.zeros(classes, old.shape[1]), self.constants
        for number, members in by_class(old, labels, classes):
            for start in range(0, len(members), MOST):
                part = members[start : start + MOST]
                rows = refined(part, int(weight["neighbours"]), weight["temperature"], weight["spread"])
                centres[number] += rows.sum(dim=0)
        return {"centre": normalize(centres)}

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        weight, labels = self.constants, batch.labels
        cosines = normalize(output["compatible"]) @ batch.statistics["centre"].T
        return {
            "labels": cross_entropy(output["logits"], labels, label_smoothing=weight["label_smoothing"]),
            "centres": weight["centres"] * margin_softmax(cosines, labels, weight["scale"], weight["margin"]),
        }


def refined(vectors: Tensor, neighbours: int, temperature: float, spread: float) -> Tensor:
    """Vectors of one class spread over their graph: (1 − γ)(I − γA)⁻¹ V; float32 [m, d] to the same.

    Row i of A is the softmax of <v_i, v_j>/temperature over the `neighbours` nearest j ≠ i. (A softmax over i, as in a
    public reimplementation, would leave the mean of the rows where it was: columns that sum to 1 keep sums.)
    """
    if len(vectors) < 2:
        return vectors
    unit = normalize(vectors)
    scores = (unit @ unit.T / temperature).fill_diagonal_(-math.inf)
    nearest = scores.topk(min(neighbours, len(vectors) - 1), dim=1)
    graph = torch.zeros_like(scores).scatter_(1, nearest.indices, nearest.values.softmax(dim=1))
    spread_out: Tensor = torch.linalg.solve(torch.eye(len(vectors)) - spread * graph, (1 - spread) * vectors)
    return spread_out


def margin_softmax(cosines: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    """Cross entropy of s·cos(θ + m·[c = y]) (ArcFace, arXiv 1801.07698, eq. 3); cosines [n, classes] to a scalar."""
    # With the margin in radians beyond π the target logit would rise again: there it stays at its lowest.
    angles = cosines.clamp(-NEARLY_ONE, NEARLY_ONE).acos()
    target = torch.zeros_like(cosines).scatter_(1, labels[:, None], margin)
    return cross_entropy(scale * (angles + target).clamp(max=math.pi).cos(), labels)
