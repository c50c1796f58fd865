"""What each further percent of backfill buys: the scores of new queries in a gallery that is part old, part new."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.arrays import Floats
from nobackfill.errors import DataError
from nobackfill.evaluation.distances import Distance, inner_form, rows_for
from nobackfill.evaluation.relevance import Relevance, Relevant
from nobackfill.evaluation.retrieval import check_selves, matches, summarise
from nobackfill.evaluation.rule_choice import SAMPLE, TENTHS, choose_rule, first_backfilled
from nobackfill.evaluation.rule_fitting import fit_rules
from nobackfill.evaluation.scores import CUTOFFS
from nobackfill.evaluation.scoring_rules import PLAIN, PREFIX, RULES, RuleName, ScoringRule, mixed_form, mixed_gallery
from nobackfill.evaluation.search import search
from nobackfill.evaluation.vectors import as_table

MAX_QUERIES = 5000  # more would not move the curve by a visible amount
AUTO = "auto"
Rule = RuleName | Literal["auto", "prefix"] | ScoringRule
"""`auto` chooses without labels, as galleries do where items have none; a name is fitted; a fitted rule is taken."""


@dataclass(frozen=True)
class BackfillingCurve:
    """The backfilling curve of one upgrade.

    Attributes:
        fractions: β, fractions of the gallery already embedded by the new model.
        scores: score → M(β) at each fraction.
        area: score → M̃, the area below, by the trapezoidal rule.
        queries: how many queries it rests on.
        rule: by which old and new scores were compared (`scoring_rules`).
        may_fall: whether no rule was found that holds the curve up: a sample showed a fall of more than half a point
            from one tenth to the next.
    """

    fractions: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]
    area: dict[str, float]
    queries: int
    rule: str = "plain"
    may_fall: bool = False


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
    rule: Rule = "auto",
    distance: Distance = "cosine",
    seed: int = 0,
    device: str = "cpu",
) -> BackfillingCurve:
    """M(β) when items are re-embedded in random order.

    Args:
        query: new queries, floats [n_q, d]. Of more than 5,000, so many are drawn at random from those with a match.
        old_gallery: floats [n_g, d_o], by the old model.
        new_gallery: floats [n_g, d], the same items by the new one.
        query_labels: integers [n_q].
        gallery_labels: integers [n_g].
        relevant: instead of labels, see `retrieval_metrics`.
        exclude_self: query i is item i.
        fractions: β from 0 to 1, ascending, at least two.
        rule: how scores of old and new items are compared. `auto` and names are fitted on at most 2,000 of the items,
            without labels; with fewer than 100 items `auto` is `plain`.
        distance: see `retrieval_metrics`; an old vector stands for its values and zeros behind them. With `l2` the only
            rule is `plain`.
        seed: of the order and of the thinning.
        device: where to compute.

    Raises:
        DataError: for misshapen or non-finite input, galleries of different lengths, fractions that do not ascend, an
            unknown rule, or one that does not fit the distance or the sample.
        ConfigError: for an unknown distance.
    """
    fractions = _checked(fractions)
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
    relevance = matches(query_labels, gallery_labels, relevant, len(queries), len(new))
    chosen = np.arange(len(queries))
    if len(queries) > MAX_QUERIES:  # of those that count, which may be few
        chosen = np.sort(random.permutation(np.flatnonzero(relevance.any(exclude_self=exclude_self)))[:MAX_QUERIES])
    some = Relevance(relevance.starts[chosen], relevance.stops[chosen], relevance.items)
    own = chosen if exclude_self else None
    fitted, may_fall = _rule_for(rule, old, new, distance, seed)
    steps = []
    for fraction in fractions:
        backfilled = first_backfilled(order, fraction)
        if distance == "cosine":
            rows, gallery = mixed_form(fitted, queries[chosen], old, new, backfilled)
        else:
            rows, gallery = inner_form(distance, queries[chosen], mixed_gallery(old, new, backfilled))
        steps.append(summarise(search(rows, gallery, some, CUTOFFS, own=own, device=device), CUTOFFS))
    points = [step.scores() for step in steps]
    scores = {name: tuple(point[name] for point in points) for name in points[0]}
    area = {name: float(np.trapezoid(values, fractions)) for name, values in scores.items()}
    return BackfillingCurve(fractions, scores, area, steps[0].queries, fitted.name, may_fall)


def _checked(fractions: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(fraction) for fraction in fractions)
    if len(values) < 2 or not all(0 <= low < high <= 1 for low, high in itertools.pairwise(values)):
        raise DataError(f"fractions: expected at least two, ascending, from 0 to 1, found {list(values)}")
    return values


def _rule_for(rule: Rule, old: Floats, new: Floats, distance: Distance, seed: int) -> tuple[ScoringRule, bool]:
    """The fitted rule, and whether the curve may fall under it; of unit vectors [n, d_o] and [n, d]."""
    if isinstance(rule, ScoringRule):
        name = rule.name
    else:
        name = rule
        if name not in (AUTO, PREFIX, *RULES):
            raise DataError(f"rule {name!r}: expected {AUTO}, {', '.join(RULES)} or {PREFIX}")
    if distance != "cosine":
        if name not in (AUTO, PLAIN.name):
            raise DataError(f"rule {name!r}: works with cosine only; with distance {distance!r} choose plain")
        return PLAIN, False
    if isinstance(rule, ScoringRule):
        return rule, False
    some = np.sort(np.random.default_rng([seed, len(new)]).permutation(len(new))[:SAMPLE])
    if name == AUTO:
        choice = choose_rule(old[some], new[some], seed=seed)
        return choice.rule, choice.may_fall
    fitted = fit_rules([name], old[some], new[some])
    if name not in fitted:
        raise DataError(f"rule {name!r}: the new model's neighbours cannot be told from scores on old vectors")
    return fitted[name], False


def mean_curve(curves: Sequence[BackfillingCurve]) -> BackfillingCurve | None:
    """Of several training runs' curves, point by point; None of none. Rules that differ are listed.

    Raises:
        DataError: if they have other fractions.
    """
    if not curves:
        return None
    first = curves[0]
    for curve in curves:
        if curve.fractions != first.fractions:
            raise DataError(
                "backfilling: curves of different fractions have no mean: "
                f"{list(first.fractions)} and {list(curve.fractions)}"
            )
    scores = {
        score: tuple(float(np.mean(values)) for values in zip(*(curve.scores[score] for curve in curves), strict=True))
        for score in first.scores
    }
    area = {score: float(np.mean([curve.area[score] for curve in curves])) for score in first.area}
    rules = ", ".join(dict.fromkeys(curve.rule for curve in curves))
    return BackfillingCurve(
        first.fractions, scores, area, first.queries, rules, any(curve.may_fall for curve in curves)
    )
