"""MixBCT: one classification loss over a batch in which some new vectors are replaced by good old ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, pad

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method, Teacher, required
from nobackfill.methods.classes import by_class, class_centres
from nobackfill.models.heads import Head, PlainHead


class MixBCT(Method):
    """L = CE(W m, y), m_i = the old vector o_i for a share `mix` of the batch, else the new vector f_i.

    Replaced are samples whose old vector is among the share `kept` of its class that is nearest to the class mean. Old
    vectors are padded with zeros where the embedding is larger. They get no gradient, so the classifier has to serve
    both models at once.
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old", "statistics"})
    ties: ClassVar[tuple[str, ...]] = ("mix",)
    loss_defaults: ClassVar[Mapping[str, float]] = {"mix": 0.3, "kept": 0.9, "label_smoothing": 0.0}
    needs_labels: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    above_zero: ClassVar[frozenset[str]] = Method.above_zero | {"kept"}
    at_most_one: ClassVar[frozenset[str]] = frozenset({"mix", "kept", "label_smoothing"})

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return PlainHead(model.embedding_dim, classes, old_dim, **model.classifier)

    def statistics(self, old: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
        """`centre` [classes, d_o], means; `radius` [classes], within which the kept share lies, 0 without a vector."""
        centre, radius = class_centres(old, labels, classes), torch.zeros(classes)
        for number, members in by_class(old, labels, classes):
            distances = torch.linalg.vector_norm(members - centre[number], dim=1).sort().values
            count = -int(-self.constants["kept"] * len(members) // 1)  # rounded up
            radius[number] = distances[count - 1]
        return {"centre": centre, "radius": radius}

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        new, old, labels = output["new"], required(batch.old), batch.labels
        centre, radius = batch.statistics["centre"][labels], batch.statistics["radius"][labels]
        # Rounding must not shut out the sample that the radius was taken from.
        good = torch.linalg.vector_norm(old - centre, dim=1) <= radius + 1e-6
        # A batch comes in random order already, so its first good samples are a random choice.
        replaced = good & (good.cumsum(dim=0) <= int(self.constants["mix"] * len(labels)))
        mixed = torch.where(replaced[:, None], pad(normalize(old), (0, new.shape[1] - old.shape[1])), new)
        logits = required(batch.classifier)(mixed)
        return {"labels": cross_entropy(logits, labels, label_smoothing=self.constants["label_smoothing"])}
