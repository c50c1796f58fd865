"""Fitting scoring rules on items that have an old and a new vector, without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Floats
from nobackfill.evaluation.scoring_rules import PLAIN, PREFIX, ScoringRule, VectorMoments

Doubles = NDArray[np.float64]
Line = tuple[float, float]
"""Slope and intercept."""
NEAREST = 10  # neighbours of the new model that count as relevant
FITTED_ON = 1000  # items at most: all pairs of them are scored
NEGATIVES = 200_000  # pairs that are not relevant, for a calibration; more are thinned out and weighted
QUANTILES = 1 - np.logspace(-2, -4, 9)  # of the scores: where first answers are found
PENALTY = 1e-5  # on the squared slope of standardised scores, so that separable scores have a finite one
STEPS = 50


@dataclass(frozen=True)
class Pairs:
    """The scores of sampled items with each other, every item a query of all others.

    Attributes:
        old: float32 [p], with old vectors (the query's first values).
        new: float32 [p], with new vectors.
        relevant: bool [p], the item is among the query's nearest ten by new vectors.
    """

    old: Floats
    new: Floats
    relevant: NDArray[np.bool_]


def fit_rules(names: Iterable[str], old: Floats, new: Floats) -> dict[str, ScoringRule]:
    """Rules by name. One that gives old scores no weight, or a negative one, is left out.

    Args:
        names: of `RULES`, or PREFIX.
        old: unit vectors [n, d_o] of a sample, n ≥ 2; more than 1,000 are thinned out for all but the moments.
        new: unit vectors [n, d] of the same items.
    """
    wanted = list(names)
    rules = {"plain": PLAIN, PREFIX: ScoringRule(PREFIX)}
    if set(wanted) <= set(rules):
        return {name: rules[name] for name in wanted}
    moments = VectorMoments.of(old), VectorMoments.of(new)
    z_score = rules["z_score"] = ScoringRule("z_score", moments=moments)
    some = np.sort(np.random.default_rng(0).permutation(len(new))[:FITTED_ON])
    pairs = sample_pairs(old[some], new[some])
    if "quantiles" in wanted:
        rules["quantiles"] = ScoringRule("quantiles", *_matched_quantiles(pairs))
    if "calibrated" in wanted:
        rules["calibrated"] = ScoringRule("calibrated", *_matched_odds(pairs))
    if "z_calibrated" in wanted:
        standardised = sample_pairs(old[some], new[some], z_score)
        rules["z_calibrated"] = ScoringRule("z_calibrated", *_matched_odds(standardised), moments)
    return {name: rules[name] for name in wanted if np.isfinite(rules[name].slope) and rules[name].slope > 0}


def sample_pairs(old: Floats, new: Floats, z_score: ScoringRule | None = None) -> Pairs:
    """All pairs of different items; with `z_score` each query's scores less their mean, by their deviation."""
    old_scores, new_scores = new[:, : old.shape[1]] @ old.T, new @ new.T
    others = ~np.eye(len(new), dtype=np.bool_)
    relevant = nearest_mask(np.where(others, new_scores, -np.inf), NEAREST) & others
    if z_score is not None and z_score.moments is not None:
        of_old, of_new = z_score.moments
        mean, deviation = of_old.of_scores(np.ascontiguousarray(new[:, : old.shape[1]]))
        old_scores = (old_scores - mean[:, None]) / deviation[:, None]
        mean, deviation = of_new.of_scores(new)
        new_scores = (new_scores - mean[:, None]) / deviation[:, None]
    return Pairs(old_scores[others], new_scores[others], relevant[others])


def nearest_mask(scores: Floats, k: int) -> NDArray[np.bool_]:
    """Which k scores of each row are its highest, bool [n, m]."""
    mask = np.zeros(scores.shape, np.bool_)
    k = min(k, scores.shape[1])
    np.put_along_axis(mask, np.argpartition(-scores, k - 1, axis=1)[:, :k], values=True, axis=1)
    return mask


def _matched_quantiles(pairs: Pairs) -> Line:
    """The line that brings high quantiles of old scores to those of new ones, by least squares."""
    x, y = (np.quantile(scores.astype(np.float64), QUANTILES) for scores in (pairs.old, pairs.new))
    if np.ptp(x) == 0:
        return 0.0, 0.0
    slope = float(np.cov(x, y, bias=True)[0, 1] / np.var(x))
    return slope, float(y.mean() - slope * x.mean())


def _matched_odds(pairs: Pairs) -> Line:
    """The line that gives an old score the new score of the same odds of being relevant."""
    positive, negative = np.flatnonzero(pairs.relevant), np.flatnonzero(~pairs.relevant)
    if not len(positive) or not len(negative):
        return 0.0, 0.0
    chosen = np.random.default_rng(0).permutation(negative)[:NEGATIVES]
    used = np.concatenate([positive, chosen])
    weights = np.ones(len(used))
    weights[len(positive) :] = len(negative) / len(chosen)
    old, new = (logistic_line(scores[used], pairs.relevant[used], weights) for scores in (pairs.old, pairs.new))
    if new[0] <= 0:
        return 0.0, 0.0
    return old[0] / new[0], (old[1] - new[1]) / new[0]


def logistic_line(scores: Floats, target: NDArray[np.bool_], weights: Doubles | None = None) -> Line:
    """Slope and intercept of the log-odds of `target`, by Newton's method (iteratively reweighted least squares).

    Args:
        scores: floats [n].
        target: bool [n], both values there.
        weights: float64 [n]; default: ones.
    """
    weight = np.ones(len(scores)) if weights is None else weights
    total = weight.sum()
    raw = scores.astype(np.float64)
    centre = float(weight @ raw / total)
    scale = float(np.sqrt(weight @ (raw - centre) ** 2 / total)) or 1.0
    x = (raw - centre) / scale
    share = float(weight @ target / total)
    line = np.array([0.0, np.log(share / (1 - share))])
    best = _loss(line, x, target, weight)
    for _ in range(STEPS):
        p = (1 + np.tanh((line[0] * x + line[1]) / 2)) / 2
        error, curvature = weight * (p - target), weight * p * (1 - p)
        gradient = np.array([error @ x + PENALTY * total * line[0], error.sum()])
        mixed = curvature @ x
        hessian = np.array([[curvature @ x**2 + PENALTY * total, mixed], [mixed, curvature.sum() + 1e-12 * total]])
        step = np.linalg.solve(hessian, gradient)
        while (loss := _loss(line - step, x, target, weight)) > best and np.abs(step).max() > 1e-9:
            step /= 2  # a full step overshoots where the odds are steep
        line, best = line - step, min(best, loss)
        if np.abs(step).max() < 1e-8:
            break
    slope = float(line[0] / scale)
    return slope, float(line[1] - slope * centre)


def _loss(line: Doubles, x: Doubles, target: NDArray[np.bool_], weight: Doubles) -> float:
    odds = line[0] * x + line[1]
    losses = np.logaddexp(0, odds) - np.where(target, odds, 0)
    return float(weight @ losses + PENALTY * weight.sum() * line[0] ** 2 / 2)
