"""Which scoring rule a pair of generations gets: fitted on half of a sample, judged on the other half.

Judged by what a search returns while more and more of the items are backfilled: by mean average precision where enough
items share a label, otherwise by agreement with the new model. Agreement is the fraction of the new model's nearest
items that are found, for the nearest ten and the nearest thirty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Floats
from nobackfill.evaluation.relevance import Relevance, by_label
from nobackfill.evaluation.rule_fitting import NEAREST, fit_rules, nearest_mask
from nobackfill.evaluation.scores import AGREEMENT, DEEP_AGREEMENT, RANKING
from nobackfill.evaluation.scoring_rules import PLAIN, RULES, ScoringRule, mixed_form
from nobackfill.evaluation.search import search

TENTHS = tuple(step / 10 for step in range(11))
SAMPLE = 2000  # items are enough to choose a rule on
LEAST = 100  # items, below which a choice would be chance
JUDGED = 500  # queries at most
LEAST_JUDGED = 50  # queries with a match, below which labels say nothing
DEPTHS = (10, 30)  # nearest items that are compared; ten alone misjudge queries that look for a whole class
ORDERS = 3  # random orders of backfilling that a curve is the mean of
FALL = 0.005  # from one tenth to the next, more of which a rule should not lose
SLACK = 0.002  # of the area, which a simpler rule may cost


@dataclass(frozen=True)
class RuleCurve:
    """What a search is worth against the fraction of the items that is backfilled, in random order.

    Attributes:
        score: `overlap` (agreement with the new model's ten nearest), `deep_overlap` (at several depths) or `mean_ap`.
        fractions: from 0 to 1.
        values: the score at each, in 0–1.
        queries: how many queries it rests on.
    """

    score: str
    fractions: tuple[float, ...]
    values: tuple[float, ...]
    queries: int

    @property
    def area(self) -> float:
        """Below the curve, by the trapezoidal rule."""
        return float(np.trapezoid(self.values, self.fractions))

    @property
    def largest_fall(self) -> float:
        """From one fraction to the next; 0 where the curve never falls."""
        return max(0.0, float(-np.diff(self.values).min(initial=0.0)))


@dataclass(frozen=True)
class RuleChoice:
    """The rule of a pair of generations.

    Attributes:
        rule: chosen; fitted on the whole sample.
        curves: of every rule that was tried; empty where the sample is too small to choose on.
        agreement: of the chosen rule, by agreement with the new model's ten nearest, whatever it was chosen by.
    """

    rule: ScoringRule
    curves: dict[str, RuleCurve]
    agreement: RuleCurve | None

    @property
    def curve(self) -> RuleCurve | None:
        """Of the chosen rule, by the score that it was chosen by."""
        return self.curves.get(self.rule.name)

    @property
    def may_fall(self) -> bool:
        """Whether the curve falls by more than half a point from one tenth to the next."""
        return self.curve is not None and self.curve.largest_fall > FALL


def choose_rule(
    old: Floats,
    new: Floats,
    labels: NDArray[np.int64] | None = None,
    *,
    names: Iterable[str] = RULES,
    seed: int = 0,
) -> RuleChoice:
    """Fit, judge and choose.

    Of the rules that never fall by more than half a point from one tenth to the next, the one with the largest area
    below its curve, or a simpler one that is as good; if all fall, the one that falls least.

    Args:
        old: unit vectors [n, d_o] of a sample of items. With fewer than 100 the rule is `plain`, or the only name.
        new: unit vectors [n, d] of the same items; their first d_o values meet the old ones.
        labels: integers [n], if the items have labels; they decide if 50 queries or more share theirs with another
            item. One without a label has a number of its own.
        names: of `RULES`, the simplest first.
        seed: of the halves and the orders.
    """
    wanted = list(names)
    if len(new) < LEAST:
        few = fit_rules(wanted, old, new) if len(wanted) == 1 and len(new) > NEAREST else {}
        return RuleChoice(next(iter(few.values()), PLAIN), {}, None)
    halves = np.random.default_rng(seed).permutation(len(new))[:SAMPLE]
    fit, judge = np.sort(halves[: len(halves) // 2]), np.sort(halves[len(halves) // 2 :])
    rules = fit_rules(wanted, old[fit], new[fit]) or {PLAIN.name: PLAIN}
    if labels is None:
        curves = rule_curves(rules, old[judge], new[judge], seed=seed)
    else:
        curves = label_curves(rules, old[judge], new[judge], labels[judge], seed=seed)
    name = best_rule(curves)
    agreement = rule_curves({name: rules[name]}, old[judge], new[judge], depths=(NEAREST,), seed=seed)[name]
    return RuleChoice(fit_rules([name], old, new).get(name, rules[name]), curves, agreement)


def best_rule(curves: dict[str, RuleCurve]) -> str:
    """The name that `choose_rule` chooses by these curves, the simplest rule's first."""
    steady = {name: curve for name, curve in curves.items() if curve.largest_fall <= FALL}
    if not steady:
        return min(curves, key=lambda name: curves[name].largest_fall)
    enough = (1 - SLACK) * max(curve.area for curve in steady.values())
    return next(name for name, curve in steady.items() if curve.area >= enough)


def rule_curves(
    rules: dict[str, ScoringRule],
    old: Floats,
    new: Floats,
    *,
    fractions: Sequence[float] = TENTHS,
    depths: Sequence[int] = DEPTHS,
    seed: int = 0,
) -> dict[str, RuleCurve]:
    """Agreement with the new model under each rule, the items [n] being queries of each other.

    The fraction of the new model's k nearest items that are among the k best, mean over the depths k; none is above a
    third of the items.
    """
    queries, orders = _draws(len(new), seed)
    rows = new[queries]
    own = np.arange(len(new)) == queries[:, None]
    old_scores, new_scores = rows[:, : old.shape[1]] @ old.T, np.where(own, -np.inf, rows @ new.T)
    wanted = {k: nearest_mask(new_scores, k) for k in {min(k, max(1, len(new) // 3)) for k in depths}}
    found: dict[str, list[float]] = {}
    for name, rule in rules.items():
        scaled = np.where(own, -np.inf, rule.apply(rows, old_scores))
        found[name] = [
            float(np.mean([_fraction_found(scaled, new_scores, wanted, order, fraction) for order in orders]))
            for fraction in fractions
        ]
    score = AGREEMENT if tuple(depths) == (NEAREST,) else DEEP_AGREEMENT
    return {name: RuleCurve(score, tuple(fractions), tuple(each), len(rows)) for name, each in found.items()}


def label_curves(
    rules: dict[str, ScoringRule],
    old: Floats,
    new: Floats,
    labels: NDArray[np.int64],
    *,
    fractions: Sequence[float] = TENTHS,
    seed: int = 0,
) -> dict[str, RuleCurve]:
    """Mean average precision under each rule, the items [n] being queries of each other; labels integers [n].

    A query whose label no other item has is not counted. Where fewer than 50 are left, labels say nothing: then
    agreement with the new model.
    """
    queries, orders = _draws(len(new), seed)
    relevance = by_label(labels, labels, len(new), len(new))
    some = Relevance(relevance.starts[queries], relevance.stops[queries], relevance.items)
    counted = int((some.stops - some.starts > 1).sum())
    if counted < LEAST_JUDGED:
        return rule_curves(rules, old, new, fractions=fractions, seed=seed)
    found: dict[str, list[float]] = {}
    for name, rule in rules.items():
        for fraction in fractions:
            means = []
            for order in orders:
                rows, gallery = mixed_form(rule, new[queries], old, new, first_backfilled(order, fraction))
                means.append(np.nanmean(search(rows, gallery, some, (1,), own=queries).precision))
            found.setdefault(name, []).append(float(np.mean(means)))
    return {name: RuleCurve(RANKING, tuple(fractions), tuple(each), counted) for name, each in found.items()}


def first_backfilled(order: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """Which items are new when this fraction of them has been backfilled in this order, bool [n]."""
    backfilled = np.zeros(len(order), np.bool_)
    backfilled[order[: round(fraction * len(order))]] = True
    return backfilled


def _draws(count: int, seed: int) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    random = np.random.default_rng([seed, count])
    queries = np.sort(random.permutation(count)[:JUDGED])
    return queries, [random.permutation(count) for _ in range(ORDERS)]


def _fraction_found(
    old_scores: Floats,
    new_scores: Floats,
    wanted: dict[int, NDArray[np.bool_]],
    order: NDArray[np.int64],
    fraction: float,
) -> float:
    """Mean over the queries and over the depths of `wanted`; scores [n_q, n]."""
    scores = np.where(first_backfilled(order, fraction), new_scores, old_scores)
    deepest = max(wanted)
    items = np.argpartition(-scores, deepest - 1, axis=1)[:, :deepest]
    best_first = np.argsort(-np.take_along_axis(scores, items, axis=1), axis=1)
    items = np.take_along_axis(items, best_first, axis=1)
    return float(np.mean([np.take_along_axis(mask, items[:, :k], axis=1).mean() for k, mask in wanted.items()]))
