"""LCE, learning compatible embeddings (ICCV 2021): within the old class's cone, the new classifier along its axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method, Teacher, required
from nobackfill.methods.classes import by_class, class_centres, largest_usual
from nobackfill.models.heads import Head, PlainHead

NEARLY_ONE = 1 - 1e-6  # the slope of acos has no end at 1


class LCE(Method):
    """L = CE(W f, y) + β·mean max(0, acos(<c_y, b>) − θ_y) + α·mean(1 − <c_y, w_y>), all vectors of unit norm.

    b: the first d_o values of f; c_y: the old centre of class y; θ_y: the widest angle to it among the class's old
    vectors that is no outlier; w_y: the first d_o values of row y of W. β, α = `boundary`, `alignment`. The means are
    over samples of classes that have at least two old vectors. Without the paper's optional transformation of the old
    model (its K = 0).
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"statistics"})
    ties: ClassVar[tuple[str, ...]] = ("boundary", "alignment")
    loss_defaults: ClassVar[Mapping[str, float]] = {"boundary": 1.0, "alignment": 1.0, "label_smoothing": 0.0}
    needs_labels: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return PlainHead(model.embedding_dim, classes, old_dim, **model.classifier)

    def statistics(self, old: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
        """`centre` [classes, d_o] of unit norm; `angle` [classes], NaN for a class with fewer than two vectors."""
        centre, angle = normalize(class_centres(old, labels, classes)), torch.full((classes,), torch.nan)
        for number, members in by_class(old, labels, classes):
            if len(members) > 1:
                angle[number] = largest_usual((normalize(members) @ centre[number]).clamp(max=1).acos())
        return {"centre": centre, "angle": angle}

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        b, labels = normalize(output["compatible"]), batch.labels
        centre, angle = batch.statistics["centre"][labels], batch.statistics["angle"][labels]
        rows = normalize(required(batch.classifier).weight[labels, : b.shape[1]])
        known = angle.isfinite()
        count = known.sum().clamp(min=1)
        beyond = ((centre * b).sum(dim=1).clamp(-NEARLY_ONE, NEARLY_ONE).acos() - angle.nan_to_num()).clamp(min=0)
        apart = 1 - (centre * rows).sum(dim=1)
        return {
            "labels": cross_entropy(output["logits"], labels, label_smoothing=self.constants["label_smoothing"]),
            "boundary": self.constants["boundary"] * (beyond * known).sum() / count,
            "alignment": self.constants["alignment"] * (apart * known).sum() / count,
        }
