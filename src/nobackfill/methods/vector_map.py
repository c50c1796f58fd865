"""`mlp` and `infonce`: from one frozen space to another, trained on pairs of vectors, as `nobackfill fit` does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nobackfill.config import Kind, ModelConfig
from nobackfill.errors import ConfigError
from nobackfill.methods.base import Batch, Method, Teacher, old_terms, required
from nobackfill.models.heads import Head, UnitHead


class VectorMap(Method):
    """What the methods below and `bt2_vectors` share. They differ in the terms that are on by default.

    L = λ·(1 − cos(b, φ_old)) + w·CE(s·b·Wᵒᵀ, y) + c·InfoNCE(b, φ_old; τ), b of unit norm.

    λ, w, s, c, τ = `old`, `prototypes`, `prototype_scale`, `contrast`, `temperature`. InfoNCE asks each b to be nearer
    to its own old vector than to the others of the batch; the prototypes need labels.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"vector"})
    classifies: ClassVar[bool] = False
    whole_batch: ClassVar[bool] = True
    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old", "prototypes"})
    ties: ClassVar[tuple[str, ...]] = ("old", "prototypes", "contrast")
    loss_defaults: ClassVar[Mapping[str, float]] = {
        "old": 1.0,
        "prototypes": 0.0,
        "prototype_scale": 16.0,
        "contrast": 0.0,
        "temperature": 0.05,
    }

    @property
    def needed(self) -> frozenset[Teacher]:
        """InfoNCE looks at the old vectors too."""
        more: frozenset[Teacher] = frozenset({"old"}) if self.constants["contrast"] else frozenset()
        return super().needed | more

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:  # noqa: ARG002
        if model.embedding_dim != old_dim:
            raise ConfigError(f"model.embedding_dim: {model.embedding_dim}, but the space it maps to has {old_dim}")
        return UnitHead(old_dim)

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        weight, b = self.constants, normalize(output["compatible"])
        parts = old_terms(b, batch, weight)
        if weight["contrast"]:
            scores = b @ normalize(required(batch.old)).T / weight["temperature"]
            parts["contrast"] = weight["contrast"] * cross_entropy(scores, torch.arange(len(b), device=b.device))
        return parts


class MLP(VectorMap):
    """By default the cosine to the old vector alone; made for a small net, `vectors/linear+HIDDEN`."""

    idea: ClassVar[str] = "A small net that maps frozen new vectors onto old ones"


class InfoNCE(VectorMap):
    """By default the contrastive term alone (arXiv 1807.03748)."""

    idea: ClassVar[str] = "A linear map of frozen new vectors, each nearer to its own old vector than to the others"
    loss_defaults: ClassVar[Mapping[str, float]] = {**VectorMap.loss_defaults, "old": 0.0, "contrast": 1.0}
