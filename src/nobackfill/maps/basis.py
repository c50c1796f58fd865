"""BT² on vectors in closed form: where the training of `bt2_vectors` starts, and often where it may end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nobackfill.maps.linear import LinearMap
from nobackfill.maps.moments import Doubles, Moments


@dataclass(frozen=True)
class Basis:
    """P [d, d] and B [d_o, d_o] orthogonal; o = normalize(A·f + a) with A [k, d], a [k]. See `models.heads`."""

    P: Doubles
    B: Doubles
    A: Doubles
    a: Doubles


def closed_basis(pairs: Moments, predictor: LinearMap, extra_dim: int) -> Basis:
    """A basis in which b = B·[o ; C·(P f)[:d_o − k]] points along the old vector.

    Of the singular pairs (u, v) of E[φ_old fᵀ], o takes the k first: it predicts the old vector's values along those u
    by least squares, freely, where a rotation of f could only copy. The others are coupled as orthogonal Procrustes
    would: along u stands f's value along v. With k = 0 this is Procrustes itself.

    Args:
        pairs: moments of (f, φ_old).
        predictor: an affine map f → φ_old, such as ridge's.
        extra_dim: k; d + k ≥ d_o ≥ k.
    """
    old_dim = len(pairs.yx)
    left, _, right = np.linalg.svd(pairs.yx, full_matrices=True)
    copied = old_dim - extra_dim
    # Rows of P: the directions of f that are copied first, then all that is left of its space.
    chosen = right[extra_dim : extra_dim + copied]
    return Basis(
        P=np.concatenate([chosen, right[:extra_dim], right[extra_dim + copied :]]),
        B=left,
        A=left[:, :extra_dim].T @ predictor.weight,
        a=left[:, :extra_dim].T @ predictor.bias,
    )
