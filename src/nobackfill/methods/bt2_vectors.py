"""`bt2_vectors`: BT² (arXiv 2211.03989) where the new model is frozen, and only vectors of it are at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from nobackfill.config import ModelConfig
from nobackfill.errors import ConfigError
from nobackfill.methods.base import required
from nobackfill.methods.vector_map import VectorMap
from nobackfill.models.heads import FrozenBasisHead, Head


class BT2Vectors(VectorMap):
    """f is the new vector, kept exactly, so BT²'s first two terms have nothing to teach; o and B are learned.

    The loss of the compatible part b is that of `VectorMap`.
    """

    model_defaults: ClassVar[Mapping[str, int | float]] = {"extra_dim": 32, "scale": 2.0}

    def check_input(self, model: ModelConfig, shape: tuple[int, ...]) -> None:
        """The vectors are kept, so the embedding's own part has their size."""
        if shape != (model.embedding_dim,):
            raise ConfigError(
                f"key 'model.embedding_dim': {model.embedding_dim}, but the vectors to keep have "
                f"{math.prod(shape)} values"
            )

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:  # noqa: ARG002
        if not model.backbone.startswith("vectors/keep"):
            raise ConfigError(f"model.backbone: {model.backbone!r}: BT² keeps the new vector; use vectors/keep")
        beside = old_dim if "+" in model.backbone else 0  # what the small net says beside the vectors
        return FrozenBasisHead(model.embedding_dim, required(model.extra_dim), old_dim, required(model.scale), beside)
