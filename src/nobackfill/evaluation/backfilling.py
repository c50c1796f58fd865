"""What each further percent of backfill buys: the scores of new queries in a gallery that is part old, part new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.arrays import Floats
from nobackfill.errors import DataError
from nobackfill.evaluation.distances import Distance, inner_form, rows_for
from nobackfill.evaluation.relevance import Relevance, Relevant
from nobackfill.evaluation.retrieval import check_selves, matches, summarise
from nobackfill.evaluation.scores import CUTOFFS
from nobackfill.evaluation.search import search
from nobackfill.evaluation.vectors import as_table

MAX_QUERIES = 5000  # more would not move the curve by a visible amount
TENTHS = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class BackfillingCurve:
    """The backfilling curve of one upgrade.

    Attributes:
        fractions: β, fractions of the gallery already embedded by the new model.
        scores: score → M(β) at each fraction.
        area: score → M̃, the area below, by the trapezoidal rule.
        queries: how many queries it rests on.
    """

    fractions: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]
    area: dict[str, float]
    queries: int


def prefix_scale(new: Floats, dim: int) -> float:
    """γ: mean norm of the first `dim` values of new unit vectors [n, d]; 1 where the old space is the whole new one."""
    return float(np.linalg.norm(new[:, :dim], axis=1).mean())


def mixed_gallery(old: Floats, new: Floats, backfilled: np.ndarray) -> Floats:
    """Vectors [n, d_o] and [n, d] as one gallery [n, d]: new where `backfilled` (bool [n]), else [old ; 0].

    Shrinking the old ones to the norm γ that a new vector's first values have sounds right and ranks worse
    (`evaluation.mixing` measures it).
    """
    gallery = np.zeros_like(new)
    gallery[:, : old.shape[1]] = old
    gallery[backfilled] = new[backfilled]
    return gallery


def backfilling_curve(
    query: ArrayLike,
    old_gallery: ArrayLike,
    new_gallery: ArrayLike,
    query_labels: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    *,
    relevant: Relevant | None = None,
    exclude_self: bool = False,
    fractions: Sequence[float] = TENTHS,
    distance: Distance = "cosine",
    seed: int = 0,
    device: str = "cpu",
) -> BackfillingCurve:
    """M(β) when items are re-embedded in random order.

    Args:
        query: new queries, floats [n_q, d]. More than 5,000 are thinned out at random.
        old_gallery: floats [n_g, d_o], by the old model.
        new_gallery: floats [n_g, d], the same items by the new one.
        query_labels: integers [n_q].
        gallery_labels: integers [n_g].
        relevant: instead of labels, see `retrieval_metrics`.
        exclude_self: query i is item i.
        fractions: β from 0 to 1, ascending.
        distance: see `retrieval_metrics`; an old vector stands for its values and zeros behind them.
        seed: of the order and of the thinning.
        device: where to compute.

    Raises:
        DataError: for misshapen or non-finite input, or galleries of different lengths.
    """
    new = rows_for(distance, as_table(new_gallery, "new gallery"), "new gallery")
    queries = new if query is new_gallery else rows_for(distance, as_table(query, "query"), "query")
    table = as_table(old_gallery, "old gallery")
    if len(table) != len(new):
        raise DataError(
            f"backfilling: expected old and new vectors of the same items, found {len(table)} old, {len(new)} new"
        )
    if queries.shape[1] != new.shape[1]:
        raise DataError(f"backfilling: query has {queries.shape[1]} values, the new gallery {new.shape[1]}")
    check_selves(exclude_self, len(queries), len(new))
    old = rows_for(distance, table, "old gallery", min(table.shape[1], new.shape[1]))
    random = np.random.default_rng(seed)
    order = random.permutation(len(new))
    chosen = np.sort(random.permutation(len(queries))[:MAX_QUERIES])
    relevance = matches(query_labels, gallery_labels, relevant, len(queries), len(new))
    some = Relevance(relevance.starts[chosen], relevance.stops[chosen], relevance.items)
    own = chosen if exclude_self else None
    steps = []
    for fraction in fractions:
        backfilled = np.zeros(len(new), np.bool_)
        backfilled[order[: round(fraction * len(new))]] = True
        rows, gallery = inner_form(distance, queries[chosen], mixed_gallery(old, new, backfilled))
        steps.append(summarise(search(rows, gallery, some, CUTOFFS, own=own, device=device), CUTOFFS))
    points = [step.scores() for step in steps]
    scores = {name: tuple(point[name] for point in points) for name in points[0]}
    area = {name: float(np.trapezoid(values, fractions)) for name, values in scores.items()}
    return BackfillingCurve(tuple(fractions), scores, area, steps[0].queries)


def mean_curve(curves: Sequence[BackfillingCurve]) -> BackfillingCurve | None:
    """Of several training runs' curves, point by point; None of none."""
    if not curves:
        return None
    first = curves[0]
    scores = {
        score: tuple(float(np.mean(values)) for values in zip(*(curve.scores[score] for curve in curves), strict=True))
        for score in first.scores
    }
    area = {score: float(np.mean([curve.area[score] for curve in curves])) for score in first.area}
    return BackfillingCurve(first.fractions, scores, area, first.queries)
