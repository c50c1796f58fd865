"""Rules that put the scores of old and new items into one ranking.

A new query q [d] meets an old item φ [d_o] with its first values, s = q[:d_o]·φ, and a new item x with s = q·x. These
two can have different scales. Then one kind hides the other, and a gallery that is partly backfilled is worse than one
left alone. A rule brings the scores of old items to the scale of new ones, whose scores stay as they are:

    without moments:  slope·s + intercept
    with moments:     μ_n + σ_n·(slope·(s − μ_o)/σ_o + intercept)

μ and σ are the mean and the deviation of the query's scores with old and with new vectors. Neither needs a scan: with
the vectors' mean m and covariance Σ they are q·m and √(qᵀΣq). So a search needs two numbers for each query and stored
generation, a factor and an offset, and the order within a generation never changes.

`prefix` is different: it compares new items by their first d_o values, renormalised. That changes the order among new
items and needs other stored vectors, so it is there to be measured, not for galleries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Floats, unit

RuleName = Literal["plain", "quantiles", "calibrated", "z_score", "z_calibrated"]
RULES: tuple[RuleName, ...] = get_args(RuleName)
"""The simplest first."""
PREFIX = "prefix"
TINY = 1e-6  # the least deviation of scores, so that vectors that all point one way divide by something


@dataclass(frozen=True, eq=False)
class VectorMoments:
    """Mean and covariance of a generation's unit vectors.

    Attributes:
        mean: float32 [d].
        covariance: float32 [d, d], symmetric.
    """

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, vectors: Floats) -> VectorMoments:
        """Of vectors [n, d], n ≥ 1."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - mean.astype(np.float32)
        return cls(mean.astype(np.float32), (centred.T @ centred / np.float32(len(vectors))).astype(np.float32))

    def of_scores(self, query: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation of each query's inner products with the vectors; query [n, d] → float32 [n] each."""
        variance = np.einsum("nd,nd->n", query @ self.covariance, query)
        return query @ self.mean, np.sqrt(np.maximum(variance, np.float32(TINY) ** 2))


@dataclass(frozen=True)
class ScoringRule:
    """A fitted rule for queries of one generation and stored vectors of an older one.

    Attributes:
        name: of `RULES`, or PREFIX.
        slope: positive.
        intercept: see the module.
        moments: of old and of new vectors, for rules that standardise each query's scores.
    """

    name: str
    slope: float = 1.0
    intercept: float = 0.0
    moments: tuple[VectorMoments, VectorMoments] | None = None

    def factors(self, query: Floats) -> tuple[Floats, Floats]:
        """What brings the scores of old items to the scale of new ones.

        Args:
            query: new unit vectors [n, d].

        Returns:
            Factor and offset of each query, float32 [n] each.
        """
        if self.moments is None:
            count = len(query)
            return np.full(count, self.slope, np.float32), np.full(count, self.intercept, np.float32)
        old, new = self.moments
        old_mean, old_deviation = old.of_scores(np.ascontiguousarray(query[:, : len(old.mean)]))
        new_mean, new_deviation = new.of_scores(query)
        factor = np.float32(self.slope) * new_deviation / old_deviation
        return factor, new_mean + np.float32(self.intercept) * new_deviation - factor * old_mean

    def apply(self, query: Floats, scores: Floats) -> Floats:
        """Scores [n, m] of queries [n, d] with old items, on the scale of new items' scores."""
        factor, offset = self.factors(query)
        return factor[:, None] * scores + offset[:, None]


PLAIN = ScoringRule("plain")


def mixed_form(
    rule: ScoringRule, query: Floats, old: Floats, new: Floats, backfilled: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Queries and a gallery that is partly backfilled, as rows whose inner products are the scores under a rule.

    Args:
        rule: for these queries.
        query: new unit vectors [n_q, d].
        old: stored unit vectors [n_g, d_o] of all items.
        new: new unit vectors [n_g, d] of all items.
        backfilled: bool [n_g], items whose vectors are new.

    Returns:
        float32 [n_q, w] and [n_g, w]; w is d for `plain`, d_o for `prefix`, d + 1 or d + d_o + 1 for the others.
    """
    dim = old.shape[1]
    fresh = backfilled[:, None]
    if rule.name == PREFIX:
        return unit(query, "query", dim), np.where(fresh, unit(new, "new gallery", dim), old)
    if rule.moments is None:
        gallery = mixed_gallery(np.float32(rule.slope) * old, new, backfilled)
        if rule.intercept == 0:
            return query, gallery
        offset = np.full((len(query), 1), rule.intercept, np.float32)
        return np.hstack([query, offset]), np.hstack([gallery, ~fresh], dtype=np.float32)
    factor, offset = rule.factors(query)
    rows = np.hstack([factor[:, None] * query[:, :dim], query, offset[:, None]], dtype=np.float32)
    return rows, np.hstack([np.where(fresh, 0, old), np.where(fresh, new, 0), ~fresh], dtype=np.float32)


def mixed_gallery(old: Floats, new: Floats, backfilled: NDArray[np.bool_]) -> Floats:
    """Vectors [n, d_o] and [n, d] as one gallery [n, d]: new where `backfilled` (bool [n]), else [old ; 0]."""
    gallery = np.zeros_like(new)
    gallery[:, : old.shape[1]] = old
    gallery[backfilled] = new[backfilled]
    return gallery
