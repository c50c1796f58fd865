"""`concat`: BT²'s loss without its change of basis: an old-compatible and a new embedding, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nobackfill.config import ModelConfig
from nobackfill.methods.base import required
from nobackfill.methods.bt2 import BT2
from nobackfill.models.heads import ConcatHead, Head


class Concat(BT2):
    """φ = [b ; C·f]: d_o + d values, what BT² would need without sharing dimensions. The loss is BT²'s."""

    model_defaults: ClassVar[Mapping[str, int | float]] = {"scale": 2.0}

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        return ConcatHead(model.embedding_dim, old_dim, required(model.scale), classes, **model.classifier)
