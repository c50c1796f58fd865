"""What holds new vectors of pairs to the old model's, without classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nobackfill.methods.base import one_minus_cosine
from nobackfill.methods.pairs import own_document


def compatibility_terms(
    embeddings: Sequence[Tensor], old: Sequence[Tensor], weights: Mapping[str, float], *, whole: bool = False
) -> dict[str, Tensor]:
    """`prototypes`·InfoNCE(b(query), φ_old(documents)) and `old`·(1 − mean cos(b, φ_old)); none of weight 0.

    Args:
        embeddings: new vectors φ of each column, floats [n, d]: queries first, then one or more of documents.
        old: old vectors of the same texts, floats [n, d_o] of any norm, d_o ≤ d.
        weights: `prototypes` and its `prototype_scale`, `old`.
        whole: as BCT does, whose φ meets old vectors padded with zeros: b is part of a unit φ, and not a unit vector.

    Returns:
        Scalars.
    """
    size = old[0].shape[1]
    units = [normalize(embedding.float())[:, :size] for embedding in embeddings]
    compatible = units if whole else [normalize(unit) for unit in units]
    parts = {}
    if weights.get("prototypes"):
        documents = normalize(torch.cat(list(old[1:])).float())
        contrast = info_nce(compatible[0], documents, weights["prototype_scale"])
        parts["prototypes"] = weights["prototypes"] * contrast
    if weights.get("old"):
        parts["old"] = weights["old"] * one_minus_cosine(torch.cat(compatible), torch.cat(list(old)).float())
    return parts


def info_nce(queries: Tensor, documents: Tensor, scale: float) -> Tensor:
    """Cross entropy of scale·<query, document> at each query's own document (arXiv 1807.03748).

    Args:
        queries: unit vectors [n, d].
        documents: unit vectors [m, d], m ≥ n; row i < n belongs to query i. A row equal to a query's own document is
            not a negative.
        scale: 1 over the temperature.
    """
    _, number = torch.unique(documents, dim=0, return_inverse=True)
    return own_document(scale * queries @ documents.T, number[: len(queries), None] == number[None])
