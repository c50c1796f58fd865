"""Heads: from backbone features to the embedding, the logits and the parts a loss needs.

Every head maps features [n, in_features] (float32) to a dict with at least

    embedding   [n, dim]       what is stored and searched
    new         [n, d]         the part trained on the labels, unit norm
    logits      [n, classes]   of the classifier W on `new`

and one that is trained against an old model also gives `compatible` [n, d_o], the values compared with old vectors.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal

from nobackfill.errors import ConfigError
from nobackfill.models.classifier import make_classifier, options_of


class Head(nn.Module):
    """Base of heads: `in_features`, `dim`, `norm`, and the options it is rebuilt from.

    Attributes:
        kind: name in `HEADS`.
        options: keyword arguments that build it again.
        in_features: size of the features it takes.
        dim: size of the embedding.
        norm: the norm every embedding has.
    """

    kind: ClassVar[str]
    options: dict[str, bool | int | float]
    in_features: int
    dim: int
    norm: float

    def fold(self) -> None:
        """Replace parametrizations by the plain weights they stand for, for storing and serving."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """[n, in_features] to the parts named in the module's docstring."""
        raise NotImplementedError("a head defines forward")


class PlainHead(Head):
    """f = normalize(h), classified by W (no bias unless asked for); the first `old_dim` values face the old model.

    With `classifier_simplex` W is a regular simplex that does not learn, and there are dim + 1 logits.
    """

    kind = "plain"

    def __init__(
        self,
        dim: int,
        classes: int,
        old_dim: int = 0,
        *,
        classifier_bias: bool = False,
        classifier_scale: float | None = None,
        classifier_simplex: bool = False,
    ) -> None:
        super().__init__()
        if old_dim > dim:
            raise ConfigError(f"model.embedding_dim: {dim} is smaller than the old embedding of {old_dim}")
        self.classifier = make_classifier(
            dim, classes, bias=classifier_bias, scale=classifier_scale, simplex=classifier_simplex
        )
        self.options = {"dim": dim, "classes": classes, "old_dim": old_dim, **options_of(self.classifier)}
        self.in_features: int = dim
        self.dim: int = dim
        self.old_dim = old_dim
        self.norm: float = 1.0

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """[n, dim] to embedding = new [n, dim], logits, compatible [n, old_dim]."""
        unit = normalize(features)
        return {
            "embedding": unit,
            "new": unit,
            "logits": self.classifier(unit),
            "compatible": unit[:, : self.old_dim],
        }


class UnitHead(Head):
    """normalize(h) and nothing else, for encoders without a classifier and for maps between spaces."""

    kind = "unit"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.options = {"dim": dim}
        self.in_features: int = dim
        self.dim: int = dim
        self.norm: float = 1.0

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """[n, dim] to embedding = new = compatible [n, dim]."""
        unit = normalize(features)
        return {"embedding": unit, "new": unit, "compatible": unit}


class BasisTransform(nn.Module):
    """The change of basis of BT² (arXiv 2211.03989, section 3): z = [o ; P·(C·f)], φ = [B·z[:d_o] ; z[d_o:]].

    P [d, d] and B [d_o, d_o] are orthogonal, so for unit f and o every φ has norm √(1 + C²) (C where k = 0), and
    <φ(x), φ(y)> = <o_x, o_y> + C²·<f_x, f_y>: nothing of f is lost.

    Args:
        dim: d, size of f.
        extra_dim: k, size of o; d + k ≥ d_o.
        old_dim: d_o, size of the old embedding.
        scale: C > 0.
    """

    def __init__(self, dim: int, extra_dim: int, old_dim: int, scale: float) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ConfigError(f"model.scale: expected a finite value above 0, found {scale}")
        if dim + extra_dim < old_dim:
            raise ConfigError(
                f"model.extra_dim: embedding_dim + extra_dim = {dim} + {extra_dim} is smaller than the old "
                f"embedding of {old_dim}; set extra_dim to at least {old_dim - dim}"
            )
        self.old_dim, self.scale = old_dim, scale
        # Cayley: half the time of the default map (matrix exponential) and the same first order; both are orthogonal
        # to rounding at every step, whatever the optimiser does.
        self.P, self.B = _orthogonal(dim), _orthogonal(old_dim)

    def forward(self, f: Tensor, o: Tensor) -> Tensor:
        """F [n, d] and o [n, k] to φ [n, k + d]."""
        z = torch.cat([o, self.P(self.scale * f)], dim=1)
        return torch.cat([self.B(z[:, : self.old_dim]), z[:, self.old_dim :]], dim=1)

    def fold(self) -> None:
        """Keep P and B as plain matrices."""
        for layer in (self.P, self.B):
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _orthogonal(dim: int) -> nn.Linear:
    layer = nn.Linear(dim, dim, bias=False)
    if not layer.weight.is_meta:  # else only its shape is wanted
        orthogonal(layer, orthogonal_map="cayley")
    return layer


class BasisTransformHead(Head):
    """The BT² head on features h [n, d + d_o].

    f = normalize(h[:d]); o = normalize(normalize(A·relu(h) + a)[:k]); φ = `BasisTransform`(f, o). With k = 0 there is
    no o and no A, and φ has norm C. The paper's ViT variant leaves out the relu (`rectify`) and has a bias in W.
    """

    kind = "bt2"

    def __init__(
        self,
        dim: int,
        extra_dim: int,
        old_dim: int,
        scale: float,
        classes: int,
        *,
        rectify: bool = True,
        classifier_bias: bool = False,
        classifier_scale: float | None = None,
    ) -> None:
        super().__init__()
        if extra_dim > old_dim:
            raise ConfigError(
                f"model.extra_dim: {extra_dim} exceeds the old embedding of {old_dim}; BT² takes its extra dimensions "
                "from a layer of that size"
            )
        self.in_features: int = dim + old_dim
        self.new_dim, self.extra_dim, self.old_dim = dim, extra_dim, old_dim
        self.dim: int = dim + extra_dim
        self.norm: float = math.hypot(scale, 1 if extra_dim else 0)
        self.basis: BasisTransform = BasisTransform(dim, extra_dim, old_dim, scale)
        self.extra: nn.Linear | None = nn.Linear(self.in_features, old_dim) if extra_dim else None
        self.classifier = make_classifier(dim, classes, bias=classifier_bias, scale=classifier_scale)
        self.rectify = rectify
        self.options = {
            "dim": dim, "extra_dim": extra_dim, "old_dim": old_dim, "scale": scale, "classes": classes,
            "rectify": rectify, **options_of(self.classifier),
        }  # fmt: skip

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """[n, d + d_o] to embedding [n, k + d], new [n, d], logits, compatible [n, d_o], extra [n, k]."""
        f = normalize(features[:, : self.new_dim])
        o = features[:, :0]
        if self.extra is not None:
            a = self.extra(relu(features) if self.rectify else features)
            o = normalize(normalize(a)[:, : self.extra_dim])
        embedding = self.basis(f, o)
        return {
            "embedding": embedding,
            "new": f,
            "logits": self.classifier(f),
            "compatible": embedding[:, : self.old_dim],
            "extra": o,
        }

    def fold(self) -> None:
        """Keep P and B as plain matrices."""
        self.basis.fold()


class FrozenBasisHead(Head):
    """BT² around a frozen embedding: features h [n, d + beside] of which the first d are the new model's vector.

    f = normalize(h[:d]), o = normalize(A·h + a) with k values, φ = `BasisTransform`(f, o). P stays where it starts: f
    is not trained to meet it halfway, a closed form knows the best start, and at 1,280 values learning it doubles the
    time of a step.
    """

    kind = "bt2_vectors"

    def __init__(self, dim: int, extra_dim: int, old_dim: int, scale: float, beside: int = 0) -> None:
        super().__init__()
        self.options = {"dim": dim, "extra_dim": extra_dim, "old_dim": old_dim, "scale": scale, "beside": beside}
        self.in_features: int = dim + beside
        self.new_dim, self.old_dim = dim, old_dim
        self.dim: int = dim + extra_dim
        self.norm: float = math.hypot(scale, 1 if extra_dim else 0)
        self.basis: BasisTransform = BasisTransform(dim, extra_dim, old_dim, scale)
        if parametrize.is_parametrized(self.basis.P, "weight"):
            parametrize.remove_parametrizations(self.basis.P, "weight", leave_parametrized=True)
        self.basis.P.weight.requires_grad_(False)
        self.extra: nn.Linear | None = nn.Linear(self.in_features, extra_dim) if extra_dim else None

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """[n, d + beside] to embedding [n, k + d], new [n, d], compatible [n, d_o], extra [n, k]."""
        f = normalize(features[:, : self.new_dim])
        o = features[:, :0] if self.extra is None else normalize(self.extra(features))
        embedding = self.basis(f, o)
        return {"embedding": embedding, "new": f, "compatible": embedding[:, : self.old_dim], "extra": o}

    def fold(self) -> None:
        """Keep P and B as plain matrices."""
        self.basis.fold()


class ConcatHead(Head):
    """Two embeddings side by side, from features h [n, d_o + d]: φ = [b ; C·f], b = normalize(h[:d_o]), f of the rest.

    The dimensions BT² would need if it shared none; ‖φ‖ = √(1 + C²) as there.
    """

    kind = "concat"

    def __init__(
        self,
        dim: int,
        old_dim: int,
        scale: float,
        classes: int,
        *,
        classifier_bias: bool = False,
        classifier_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.classifier = make_classifier(dim, classes, bias=classifier_bias, scale=classifier_scale)
        self.options = {
            "dim": dim, "old_dim": old_dim, "scale": scale, "classes": classes, **options_of(self.classifier),
        }  # fmt: skip
        self.in_features: int = old_dim + dim
        self.dim: int = old_dim + dim
        self.old_dim, self.scale = old_dim, scale
        self.norm: float = math.hypot(1, scale)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """[n, d_o + d] to embedding [n, d_o + d], new [n, d], logits, compatible [n, d_o]."""
        b, f = normalize(features[:, : self.old_dim]), normalize(features[:, self.old_dim :])
        return {
            "embedding": torch.cat([b, self.scale * f], dim=1),
            "new": f,
            "logits": self.classifier(f),
            "compatible": b,
        }


HEADS: dict[str, type[Head]] = {
    head.kind: head for head in (PlainHead, UnitHead, BasisTransformHead, ConcatHead, FrozenBasisHead)
}
