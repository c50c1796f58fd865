"""OCA, orthogonal compatible aligned training (ECCV-W 2024): extra values, and a rotation before the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils.parametrizations import orthogonal

from nobackfill.config import ModelConfig
from nobackfill.methods.base import Batch, Method, Teacher, one_minus_cosine, prototype_loss, required
from nobackfill.models.heads import Head, PlainHead


class OCA(Method):
    """L = λ1·CE(W(Q h + q), y) + λ2·CE(s·normalize(b)·Wᵒᵀ, y) + λ3·(1 − cos(b, Wᵒ_y)), b = h[:d_o].

    h: the embedding, of d + k values; Q orthogonal, dropped after training. λ1, λ2, λ3, s = `labels`, `prototypes`,
    `alignment`, `prototype_scale`; label smoothing acts on the first two terms. As W is free, W(Q h + q) is any linear
    classifier of h with a bias: Q changes how it is found, not what it can say.
    """

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"prototypes"})
    ties: ClassVar[tuple[str, ...]] = ("prototypes", "alignment")
    loss_defaults: ClassVar[Mapping[str, float]] = {
        "labels": 5.0,
        "prototypes": 10.0,
        "alignment": 5.0,
        "prototype_scale": 1.0,
        "label_smoothing": 0.1,
    }
    needs_labels: ClassVar[bool] = True

    @property
    def needed(self) -> frozenset[Teacher]:
        """The alignment looks at the prototypes too."""
        more: frozenset[Teacher] = frozenset({"prototypes"}) if self.constants["alignment"] else frozenset()
        return super().needed | more

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return PlainHead(model.embedding_dim, classes, old_dim, **model.classifier)

    def modules(self, model: ModelConfig, old_dim: int, classes: int) -> nn.Module:  # noqa: ARG002
        """Q and q."""
        return orthogonal(nn.Linear(model.embedding_dim, model.embedding_dim), orthogonal_map="cayley")

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        weight, labels, smoothing = self.constants, batch.labels, self.constants["label_smoothing"]
        logits = required(batch.classifier)(required(batch.own)(output["new"]))
        parts = {"labels": weight["labels"] * cross_entropy(logits, labels, label_smoothing=smoothing)}
        b = output["compatible"]
        if weight["prototypes"]:
            parts["prototypes"] = weight["prototypes"] * prototype_loss(
                normalize(b),
                required(batch.prototypes),
                labels,
                scale=weight["prototype_scale"],
                label_smoothing=smoothing,
            )
        if weight["alignment"]:
            parts["alignment"] = weight["alignment"] * one_minus_cosine(b, required(batch.prototypes)[labels])
        return parts
