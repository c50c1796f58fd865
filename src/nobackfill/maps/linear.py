"""Closed-form maps y ≈ W·x + c between frozen spaces, from moments of pairs of unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nobackfill.maps.moments import Doubles, Moments


@dataclass(frozen=True)
class LinearMap:
    """x ↦ W·x + c.

    Attributes:
        weight: W, float64 [m, d].
        bias: c, float64 [m].
        choice: what was chosen to make it, in words.
    """

    weight: Doubles
    bias: Doubles
    choice: str


def procrustes(pairs: Moments, *, centred: bool) -> LinearMap:
    """The rotation (for unequal sizes: with the smaller space padded by zeros) of least squared error.

    R = U·Vᵀ of the singular value decomposition of E[y xᵀ] (Schönemann 1966); `centred` about the means, which are
    taken off first and added after.
    """
    _, cross = pairs.centred() if centred else (pairs.xx, pairs.yx)
    left, _, right = np.linalg.svd(cross, full_matrices=False)
    rotation = left @ right
    bias = pairs.mean_y - rotation @ pairs.mean_x if centred else np.zeros(len(rotation))
    return LinearMap(rotation, bias, "centred" if centred else "not centred")


def ridge(pairs: Moments, penalties: Sequence[float]) -> list[LinearMap]:
    """Least squares with λ·‖W‖² for each penalty λ, the bias left free: W = Cov(y, x)·(Cov(x, x) + λ·s·I)⁻¹.

    s is the mean variance of a value of x, so that a penalty means the same whatever the size of the space. One
    decomposition serves all penalties.
    """
    covariance, cross = pairs.centred()
    values, vectors = np.linalg.eigh(covariance)
    rotated = cross @ vectors
    scale = max(float(values.mean()), float(np.finfo(np.float32).tiny))
    maps = []
    for penalty in penalties:
        weight = (rotated / (np.maximum(values, 0) + penalty * scale)) @ vectors.T
        maps.append(LinearMap(weight, pairs.mean_y - weight @ pairs.mean_x, f"penalty {penalty:g}"))
    return maps
