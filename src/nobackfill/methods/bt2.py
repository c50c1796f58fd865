"""BT², backward-compatible training with basis transformation (arXiv 2211.03989)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method, Teacher, old_terms, one_minus_cosine, required
from nobackfill.models.heads import BasisTransformHead, Head


class BT2(Method):
    """L = CE(W f, y) + λ1·(1 − cos(f, φ'_new)) + λ2·CE(s·normalize(b)·Wᵒᵀ, y) + λ3·(1 − cos(b, φ_old)).

    λ1, λ2, λ3, s = `independent`, `prototypes`, `old`, `prototype_scale`; label smoothing acts on the first term.
    With λ1 = 0 it needs no independent model.
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old", "independent", "prototypes"})
    loss_defaults: ClassVar[Mapping[str, float]] = {
        "independent": 1.0,
        "prototypes": 10.0,
        "old": 5.0,
        "prototype_scale": 1.0,
        "label_smoothing": 0.0,
    }
    ties: ClassVar[tuple[str, ...]] = ("prototypes", "old")
    model_defaults: ClassVar[Mapping[str, int | float]] = {"extra_dim": 32, "scale": 2.0, "rectify": True}

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return BasisTransformHead(
            model.embedding_dim,
            required(model.extra_dim),
            old_dim,
            required(model.scale),
            classes,
            rectify=required(model.rectify),
            **model.classifier,
        )

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        weight = self.constants
        parts = {"labels": cross_entropy(output["logits"], batch.labels, label_smoothing=weight["label_smoothing"])}
        if weight["independent"]:
            parts["independent"] = weight["independent"] * one_minus_cosine(output["new"], required(batch.independent))
        return parts | old_terms(output["compatible"], batch, weight)
