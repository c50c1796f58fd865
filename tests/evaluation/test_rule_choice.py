"""Choosing a scoring rule: never worse where plain scores are."""

from __future__ import annotations

import numpy as np
import pytest

from nobackfill.evaluation import backfilling_curve
from nobackfill.evaluation.rule_choice import (
    FALL,
    TENTHS,
    RuleCurve,
    best_rule,
    choose_rule,
    first_backfilled,
    label_curves,
    rule_curves,
)
from nobackfill.evaluation.rule_fitting import fit_rules
from nobackfill.evaluation.scoring_rules import PLAIN, RULES

D_O, D, CLASSES = 24, 36, 20


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def pair(count: int, seed: int, *, shared: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Old and new vectors, labels; `shared` is a direction that all new vectors have beyond the old ones' space."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    content = random.standard_normal((CLASSES, D))[labels] + 0.8 * random.standard_normal((count, D))
    old = unit(content[:, :D_O] + 0.6 * random.standard_normal((count, D_O)))
    return old, unit(np.hstack([content, np.full((count, 1), shared * np.sqrt(D))])), labels


@pytest.mark.parametrize("seed", range(3))
def test_plain_scores_fall_where_scales_differ_and_the_chosen_rule_does_not(seed: int) -> None:
    old, new, labels = pair(600, seed, shared=2)
    choice = choose_rule(old, new, seed=seed)
    assert choice.curves["plain"].largest_fall > 0.1
    assert not choice.may_fall
    assert choice.curve is not None
    assert choice.curve.largest_fall <= FALL
    assert choice.curve.area >= 0.99 * max(curve.area for curve in choice.curves.values())
    plain, chosen = (  # by labels, which the choice has not seen
        np.asarray(backfilling_curve(new, old, new, labels, labels, exclude_self=True, rule=rule).scores["mean_ap"])
        for rule in (PLAIN, choice.rule)
    )
    assert np.diff(plain).min() < -0.1
    assert np.diff(chosen).min() > -FALL


def test_plain_scores_are_kept_where_nothing_is_better() -> None:
    content = np.random.default_rng(0).standard_normal((400, D))
    vectors = unit(content)
    choice = choose_rule(vectors, vectors)
    assert choice.rule is PLAIN or choice.rule == PLAIN
    assert choice.curve is not None
    assert choice.curve.values == (1.0,) * 11


def test_agreement_equals_a_loop() -> None:
    old, new, _ = pair(40, 5, shared=1)
    rules = fit_rules(RULES, old, new)
    curves = rule_curves(rules, old, new, fractions=(0.0, 0.3, 1.0), seed=2)
    random = np.random.default_rng([2, 40])
    random.permutation(40)
    orders = [random.permutation(40) for _ in range(3)]
    for name, rule in rules.items():
        for place, fraction in enumerate((0.0, 0.3, 1.0)):
            found = []
            for order in orders:
                fresh = set(order[: round(fraction * 40)].tolist())
                for i in range(40):
                    others = [j for j in range(40) if j != i]
                    factor, offset = (each[0] for each in rule.factors(new[i : i + 1]))
                    scores = {
                        j: new[i] @ new[j] if j in fresh else factor * (new[i, :D_O] @ old[j]) + offset for j in others
                    }
                    right, ranked = (
                        sorted(others, key=lambda j: -new[i] @ new[j]), sorted(others, key=lambda j: -scores[j])
                    )  # fmt: skip
                    found += [len(set(right[:k]) & set(ranked[:k])) / k for k in (10, 13)]  # 13: a third of the items
            assert curves[name].values[place] == pytest.approx(np.mean(found), abs=1e-9)
        assert curves[name].queries == 40


def test_labels_decide_where_there_are_some() -> None:
    old, new, labels = pair(300, 1, shared=2)
    choice = choose_rule(old, new, labels)
    assert choice.curve is not None
    assert choice.agreement is not None
    assert (choice.curve.score, choice.agreement.score) == ("mean_ap", "overlap")
    assert choose_rule(old, new).curves["plain"].score == "deep_overlap"
    ends = label_curves({"plain": PLAIN}, old, new, labels, fractions=(0.0, 1.0))["plain"]
    whole = backfilling_curve(new, old, new, labels, labels, exclude_self=True, fractions=(0, 1), rule="plain")
    assert ends.values == pytest.approx(whole.scores["mean_ap"])
    unlike = label_curves({"plain": PLAIN}, old, new, np.arange(300), fractions=(0.0, 1.0))["plain"]
    assert unlike.score == "deep_overlap"


def test_of_steady_rules_the_simplest_that_is_as_good_is_taken() -> None:
    def curve(*values: float) -> RuleCurve:
        return RuleCurve("overlap", (0.0, 0.5, 1.0), values, 10)

    falling, low, good, slightly_better = (
        curve(0.5, 0.2, 1),
        curve(0.5, 0.6, 1),
        curve(0.5, 0.8, 1),
        curve(0.5, 0.801, 1),
    )
    assert (
        best_rule({"plain": falling, "quantiles": low, "calibrated": good, "z_score": slightly_better}) == "calibrated"
    )
    assert best_rule({"plain": falling, "z_score": low}) == "z_score"
    assert best_rule({"plain": falling, "z_score": curve(0.5, 0.4, 1)}) == "z_score"  # all fall: the least


def test_a_rule_that_falls_is_flagged() -> None:
    old, new, _ = pair(300, 3, shared=2)
    choice = choose_rule(old, new, names=("plain",))
    assert choice.rule.name == "plain"
    assert choice.may_fall
    curve = backfilling_curve(new, unit(-old), new, relevant=[[i] for i in range(300)])
    assert curve.fractions == TENTHS


def test_a_small_sample_decides_nothing() -> None:
    old, new, _ = pair(99, 4, shared=2)
    choice = choose_rule(old, new)
    assert (choice.rule, choice.curve, choice.agreement, choice.may_fall) == (PLAIN, None, None, False)
    assert choose_rule(old, new, names=("z_score",)).rule.name == "z_score"
    assert choose_rule(old[:3], new[:3], names=("z_score",)).rule == PLAIN


def test_first_backfilled() -> None:
    order = np.array([3, 1, 0, 2])
    assert first_backfilled(order, 0.5).tolist() == [False, True, False, True]
    assert first_backfilled(order, 0).sum() == 0
