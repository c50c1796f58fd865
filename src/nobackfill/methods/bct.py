"""BCT, backward-compatible training (arXiv 2003.11942): one embedding, classified by the old class means as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method, Teacher, prototype_loss, required
from nobackfill.models.heads import Head, PlainHead


class BCT(Method):
    """L = CE(W f, y) + α·CE(s·f·Wᵒᵀ, y), both with label smoothing; α = `prototypes`, s = `prototype_scale`.

    Where the new embedding is larger than the old one, Wᵒ counts as padded with zeros: only the first d_o values of f
    meet it.
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"prototypes"})
    ties: ClassVar[tuple[str, ...]] = ("prototypes",)
    loss_defaults: ClassVar[Mapping[str, float]] = {"prototypes": 10.0, "prototype_scale": 1.0, "label_smoothing": 0.1}

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return PlainHead(model.embedding_dim, classes, old_dim, **model.classifier)

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        smoothing = self.constants["label_smoothing"]
        old_classifier = prototype_loss(
            output["compatible"],
            required(batch.prototypes),
            batch.labels,
            scale=self.constants["prototype_scale"],
            label_smoothing=smoothing,
        )
        return {
            "labels": cross_entropy(output["logits"], batch.labels, label_smoothing=smoothing),
            "prototypes": self.constants["prototypes"] * old_classifier,
        }
