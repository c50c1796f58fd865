"""Heads and fitted maps as modules that every installation of sentence-transformers has: `Dense` and `Normalize`.

What they can say: linear layers with an activation, one after the other, and scaling the whole vector to unit norm.
What they cannot: scaling two parts of a vector apart, as the heads of BT² with extra dimensions and `concat` do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nobackfill.errors import RunError, require
from nobackfill.models.heads import BasisTransform, BasisTransformHead, FrozenBasisHead, Head, PlainHead, UnitHead
from nobackfill.models.vector_net import VectorNet

require("sentence_transformers", what="a SentenceTransformer folder")
from sentence_transformers.sentence_transformer.modules import Dense, Normalize  # noqa: E402

Modules = list[nn.Module]


def head_modules(head: Head) -> Modules:
    """A head, from features [n, in_features] to its embedding [n, dim].

    Args:
        head: trained, on the CPU.

    Returns:
        `Dense` without bias and `Normalize`.

    Raises:
        RunError: for a head that scales parts of its vector apart.
    """
    if isinstance(head, UnitHead | PlainHead):
        return [Normalize()]
    if isinstance(head, BasisTransformHead | FrozenBasisHead) and head.extra is None:
        first = torch.eye(head.new_dim, head.in_features)
        chosen: Modules = [dense(first)] if head.in_features > head.new_dim else []
        return [*chosen, Normalize(), dense(basis_matrix(head.basis))]
    raise RunError(
        f"its head {head.kind!r} scales two parts of the vector apart, which no standard module does; "
        "train it with extra_dim 0 (fit: --extra-dim 0) or by `prefix`, or use nobackfill.interop.SentenceModule"
    )


def map_modules(net: VectorNet) -> Modules:
    """The backbone of a fitted map, from unit vectors [n, d] to the features that its head takes.

    A net beside a linear layer takes the vector through the activation: x = gelu(x) − gelu(−x), exactly.

    Raises:
        RunError: for a net whose output is appended to the vectors, which only BT² with extra dimensions needs.
    """
    if net.linear is None:
        if net.net is not None:
            raise RunError("its net is appended to the vectors: only BT² with extra dimensions has one")
        return []
    linear, bias = net.linear.weight.detach(), net.linear.bias.detach()
    if net.net is None:
        return [dense(linear, bias)]
    inner, _, outer = net.net
    assert isinstance(inner, nn.Linear) and isinstance(outer, nn.Linear)  # noqa: S101, PT018 (how VectorNet is built)
    through = torch.eye(linear.shape[1])
    none = torch.zeros(2 * linear.shape[1])
    return [
        dense(torch.cat([inner.weight, through, -through]), torch.cat([inner.bias, none]), nn.GELU()),
        dense(torch.cat([outer.weight, linear, -linear], dim=1), outer.bias + bias),
    ]


def basis_matrix(basis: BasisTransform) -> Tensor:
    """The change of basis without extra dimensions as one matrix [d, d]: φ = M·f, M = C·[B 0; 0 I]·P."""
    turned, first = (layer.weight.detach().double() for layer in (basis.P, basis.B))
    matrix = torch.cat([first @ turned[: basis.old_dim], turned[basis.old_dim :]])
    return basis.scale * matrix.float()


def dense(weight: Tensor, bias: Tensor | None = None, activation: nn.Module | None = None) -> nn.Module:
    """X ↦ activation(W·x + b) on the sentence embedding; W [out, in]."""
    module = Dense(weight.shape[1], weight.shape[0], bias=bias is not None, activation_function=activation)
    with torch.no_grad():
        module.linear.weight.copy_(weight)
        if bias is not None:
            module.linear.bias.copy_(bias)
    layer: nn.Module = module
    return layer
