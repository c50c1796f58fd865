"""`prefix`: one plain embedding of d + k values whose first d_o face the old model. Our own candidate beside BT²."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method, Teacher, old_terms
from nobackfill.models.heads import Head, PlainHead


class PrefixMethod(Method):
    """L = CE(W φ, y) + w·CE(s·normalize(b)·Wᵒᵀ, y) + λ·(1 − cos(b, φ_old)), b = φ[:d_o].

    w, s, λ = `prototypes`, `prototype_scale`, `old`. Like BT² it asks single vectors to stay near the old ones; unlike
    BT² it has no change of basis and needs no independently trained model. `embedding_dim` is the whole size, d + k.
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old", "prototypes"})
    ties: ClassVar[tuple[str, ...]] = ("prototypes", "old")
    loss_defaults: ClassVar[Mapping[str, float]] = {
        "prototypes": 1.0,
        "prototype_scale": 16.0,
        "old": 5.0,
        "label_smoothing": 0.0,
    }

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return PlainHead(model.embedding_dim, classes, old_dim, **model.classifier)

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        smoothing = self.constants["label_smoothing"]
        labels = cross_entropy(output["logits"], batch.labels, label_smoothing=smoothing)
        return {"labels": labels, **old_terms(output["compatible"], batch, self.constants)}
