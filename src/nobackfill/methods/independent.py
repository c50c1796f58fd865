"""A new model trained without the old one: the upper bound of new/new; cannot search old vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method
from nobackfill.models.heads import Head, PlainHead


class Independent(Method):
    """L = CE(W f, y) with label smoothing."""

    loss_defaults: ClassVar[Mapping[str, float]] = {"label_smoothing": 0.1}

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:  # noqa: ARG002
        return PlainHead(model.embedding_dim, classes, **model.classifier)

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        smoothing = self.constants["label_smoothing"]
        return {"labels": cross_entropy(output["logits"], batch.labels, label_smoothing=smoothing)}
