"""d-Simplex (CVPR 2024): the classifier is a regular simplex that never changes, so no generation has to move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nobackfill.config import ModelConfig
from nobackfill.errors import ConfigError
from nobackfill.methods.base import Batch, Method, Teacher, required
from nobackfill.models.heads import Head, PlainHead

SCALE = 16.0  # of unit vectors' logits; the published features have a norm of their own


class DSimplex(Method):
    """L = λ·CE(s·S f, y), S: the d + 1 corners of a regular simplex; for a first generation. λ = `labels`.

    A class is its corner in every generation, if the classes keep their numbers and new ones come after them. The size
    d says how many classes there may ever be, d + 1 (published: 1,023 values for 1,024 classes). s = the model's
    `classifier_scale`, 16 where none is given.
    """

    loss_defaults: ClassVar[Mapping[str, float]] = {"labels": 1.0, "label_smoothing": 0.0}
    needs_labels: ClassVar[bool] = True

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        if model.classifier_bias:
            raise ConfigError("key 'model.classifier_bias': a simplex classifier has no bias; set it to false")
        scale = model.classifier_scale or SCALE
        return PlainHead(model.embedding_dim, classes, old_dim, classifier_scale=scale, classifier_simplex=True)

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        smoothing = self.constants["label_smoothing"]
        labels = cross_entropy(output["logits"], batch.labels, label_smoothing=smoothing)
        return {"labels": self.constants["labels"] * labels}


class DSimplexHOC(DSimplex):
    """L = λ·CE(s·S f, y) + κ·mean_i(−μ·o_i·b_i + log Σ_j exp(μ·o_i·b_j·[y_j ≠ y_i])), the classifier as in `DSimplex`.

    b: the first d_o values of f, o: the old vector, both of unit norm; a sample of the same class counts e⁰. λ, κ, μ =
    `labels`, `old`, `sharpness`.
    """

    idea: ClassVar[str] = (
        "d-Simplex with a contrastive term to the old vectors (HOC): each image near its own old vector"
    )
    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old"})
    ties: ClassVar[tuple[str, ...]] = ("old",)
    loss_defaults: ClassVar[Mapping[str, float]] = {
        "labels": 0.1,
        "old": 0.9,
        "sharpness": 10.0,
        "label_smoothing": 0.0,
    }
    whole_batch: ClassVar[bool] = True

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        scores = normalize(required(batch.old)) @ normalize(output["compatible"]).T * self.constants["sharpness"]
        different = batch.labels[:, None] != batch.labels[None, :]
        terms = torch.logsumexp(scores * different, dim=1) - scores.diagonal()
        return {**super().loss(output, batch), "old": self.constants["old"] * terms.mean()}
