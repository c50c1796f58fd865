"""`low_rank`: a rotation, and a correction of few dimensions where rotating is not enough."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nobackfill.maps import budget
from nobackfill.maps.folders import map_encoder
from nobackfill.maps.linear import LinearMap, procrustes
from nobackfill.maps.moments import Moments
from nobackfill.maps.task import Candidate, Task, kept


def fit_low_rank(task: Task) -> Iterator[Candidate]:
    """Rank and penalty by retrieval on the validation rows."""
    most = min(task.x.shape[1], task.y.shape[1])
    settings = [
        (rank, penalty) for rank in sorted({min(rank, most) for rank in budget.RANKS})
        for penalty in budget.RANK_PENALTIES
    ]  # fmt: skip
    scores = [task.score(map_encoder("low_rank", low_rank(task.moments, *one), task.prefix)) for one in settings]
    best = low_rank(task.all_moments, *settings[int(np.argmax(scores))])
    yield kept(task, "low_rank", map_encoder("low_rank", best, task.prefix), best.choice, max(scores))


def low_rank(pairs: Moments, rank: int, penalty: float) -> LinearMap:
    """W = R + A, R orthogonal Procrustes about the means and A of this rank, the bias left free.

    A minimises E‖y − c − R·x − A·x‖² + λ·s·‖A‖²: the ridge solution for what R leaves over, projected onto its `rank`
    strongest output directions (reduced-rank ridge regression, Mukherjee and Zhu 2011). s as in `linear.ridge`.

    Args:
        pairs: moments of (x, y).
        rank: of A, at least 1.
        penalty: λ.
    """
    rotation = procrustes(pairs, centred=True).weight
    covariance, cross = pairs.centred()
    left_over = cross - rotation @ covariance
    scale = max(float(np.trace(covariance)) / len(covariance), float(np.finfo(np.float32).tiny))
    full = np.linalg.solve(covariance + penalty * scale * np.eye(len(covariance)), left_over.T).T
    # A (Cov + λsI) Aᵀ, whose strongest eigenvectors are the directions to keep.
    strength = full @ left_over.T
    _, vectors = np.linalg.eigh((strength + strength.T) / 2)
    kept_directions = vectors[:, -rank:]
    weight = rotation + kept_directions @ (kept_directions.T @ full)
    return LinearMap(weight, pairs.mean_y - weight @ pairs.mean_x, f"rank {rank}, penalty {penalty:g}")
