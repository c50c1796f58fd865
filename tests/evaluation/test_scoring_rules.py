"""Scoring rules against loops over items."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from nobackfill.errors import DataError
from nobackfill.evaluation import backfilling_curve
from nobackfill.evaluation.rule_fitting import NEAREST, QUANTILES, fit_rules, logistic_line
from nobackfill.evaluation.scoring_rules import PREFIX, RULES, ScoringRule, VectorMoments, mixed_form

D_O, D, ITEMS = 5, 8, 60


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def pair(count: int = ITEMS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Old vectors [n, D_O] that are new ones' first values with noise, and new ones [n, D]."""
    random = np.random.default_rng(seed)
    new = random.standard_normal((count, D))
    return unit(new[:, :D_O] + 0.7 * random.standard_normal((count, D_O))), unit(new)


def standardised(scores: list[float], score: float) -> float:
    mean = sum(scores) / len(scores)
    return (score - mean) / math.sqrt(sum((each - mean) ** 2 for each in scores) / len(scores))


def logistic_by_search(scores: list[float], target: list[bool]) -> tuple[float, float]:
    """The same line by halving intervals: of the intercept for each slope, and of the slope."""
    mean = sum(scores) / len(scores)
    scale = math.sqrt(sum((each - mean) ** 2 for each in scores) / len(scores))
    x, wanted = np.array([(each - mean) / scale for each in scores]), np.array(target)

    def excess(slope: float, intercept: float) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-(slope * x + intercept))) - wanted)

    def best_intercept(slope: float) -> float:
        return halved(lambda intercept: float(excess(slope, intercept).mean()), -60, 60)

    slope = halved(lambda slope: float((excess(slope, best_intercept(slope)) * x).mean() + 1e-5 * slope), 0, 40)
    return slope / scale, best_intercept(slope) - slope * mean / scale


def halved(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is zero."""
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def test_z_score_uses_the_mean_and_deviation_of_a_querys_scores() -> None:
    old, new = pair()
    rule = fit_rules(["z_score"], old, new)["z_score"]
    query = unit(np.random.default_rng(1).standard_normal((6, D)))
    found = rule.apply(query, query[:, :D_O] @ old.T)
    for q, line in zip(query, found, strict=True):
        of_old = [float(q[:D_O] @ item) for item in old]
        of_new = np.array([float(q @ item) for item in new])
        wanted = [of_new.mean() + of_new.std() * standardised(of_old, score) for score in of_old]
        np.testing.assert_allclose(line, wanted, atol=2e-5)


@pytest.mark.parametrize("name", ["calibrated", "z_calibrated"])
def test_calibration_compares_the_odds_of_being_near(name: str) -> None:
    old, new = pair()
    rule = fit_rules([name], old, new)[name]
    scores: dict[str, list[float]] = {"old": [], "new": []}
    relevant = []
    for i in range(ITEMS):
        of_old = [float(new[i, :D_O] @ old[j]) for j in range(ITEMS)]
        of_new = [float(new[i] @ new[j]) for j in range(ITEMS)]
        nearest = sorted((j for j in range(ITEMS) if j != i), key=lambda j: -of_new[j])[:NEAREST]
        for j in range(ITEMS):
            if j != i:
                relevant.append(j in nearest)
                raw = name == "calibrated"
                scores["old"].append(of_old[j] if raw else standardised(of_old, of_old[j]))
                scores["new"].append(of_new[j] if raw else standardised(of_new, of_new[j]))
    (old_slope, old_intercept), (slope, intercept) = (
        logistic_by_search(scores[side], relevant) for side in ("old", "new")
    )
    assert rule.slope == pytest.approx(old_slope / slope, rel=1e-3)
    assert rule.intercept == pytest.approx((old_intercept - intercept) / slope, abs=1e-3)
    assert (rule.moments is None) == (name == "calibrated")


def test_a_logistic_line_finds_the_odds_it_was_made_from() -> None:
    random = np.random.default_rng(1)
    scores = random.standard_normal(200_000).astype(np.float32)
    target = random.random(len(scores)) < 1 / (1 + np.exp(-(5 * scores - 7)))
    slope, intercept = logistic_line(scores, target)
    assert [slope, intercept] == pytest.approx([5, -7], rel=0.05)
    kept = target | (random.random(len(scores)) < 0.2)  # a fifth of the others, at five times the weight
    again = logistic_line(scores[kept], target[kept], np.where(target[kept], 1.0, 5.0))
    assert list(again) == pytest.approx([5, -7], rel=0.07)
    apart = logistic_line(np.array([0, 0, 1, 1], np.float32), np.array([False, False, True, True]))
    assert np.isfinite(apart).all()
    assert apart[0] > 0


def test_quantiles_are_those_of_new_scores() -> None:
    old, content = pair(400)
    new = unit(np.hstack([content, np.ones((400, 1))]))  # all scores are higher, and closer together
    rule = fit_rules(["quantiles"], old, new)["quantiles"]
    others = ~np.eye(len(new), dtype=bool)
    before = np.quantile((new[:, :D_O] @ old.T)[others], QUANTILES)
    wanted = np.quantile((new @ new.T)[others], QUANTILES)
    np.testing.assert_allclose(rule.slope * before + rule.intercept, wanted, atol=0.02)
    assert np.abs(before - wanted).max() > 0.05


@pytest.mark.parametrize("name", [*RULES, PREFIX])
def test_the_rows_of_a_mixed_gallery_give_the_scores_of_a_rule(name: str) -> None:
    old, new = pair()
    rule = fit_rules([name], old, new)[name]
    query = unit(np.random.default_rng(2).standard_normal((7, D)))
    backfilled = np.random.default_rng(3).random(ITEMS) < 0.4
    rows, items = mixed_form(rule, query, old, new, backfilled)
    factor, offset = rule.factors(query)
    for i, q in enumerate(query):
        for j in range(ITEMS):
            if name == PREFIX:
                side = new[j, :D_O] / np.linalg.norm(new[j, :D_O]) if backfilled[j] else old[j]
                wanted = float(q[:D_O] @ side) / float(np.linalg.norm(q[:D_O]))
            else:
                wanted = float(q @ new[j]) if backfilled[j] else float(factor[i] * (q[:D_O] @ old[j]) + offset[i])
            assert float(rows[i] @ items[j]) == pytest.approx(wanted, abs=3e-5)


def test_a_rule_that_old_scores_say_nothing_for_is_left_out() -> None:
    _, new = pair()
    opposed = unit(-new[:, :D_O])
    assert list(fit_rules(RULES, opposed, new)) == ["plain", "quantiles", "z_score"]
    with pytest.raises(DataError, match="rule 'calibrated': the new model's neighbours cannot be told"):
        backfilling_curve(new, opposed, new, np.arange(ITEMS) % 7, np.arange(ITEMS) % 7, rule="calibrated")


def test_vectors_that_all_point_one_way_have_a_deviation() -> None:
    same = np.tile(unit(np.ones((1, D))), (20, 1))
    factor, offset = ScoringRule("z_score", moments=(VectorMoments.of(same), VectorMoments.of(same))).factors(same)
    assert np.isfinite([factor, offset]).all()


def test_a_curve_takes_a_rule_by_name_or_as_it_is() -> None:
    old, new = pair(150)
    labels = np.arange(150) % 7
    fitted = fit_rules(["z_calibrated"], old, new)["z_calibrated"]
    by_name, given = (
        backfilling_curve(new, old, new, labels, labels, exclude_self=True, rule=rule)
        for rule in ("z_calibrated", fitted)
    )
    assert by_name == given
    assert by_name.rule == "z_calibrated"
    plain = backfilling_curve(new, old, new, labels, labels, exclude_self=True, rule="plain")
    assert plain.scores["mean_ap"][::10] == pytest.approx(given.scores["mean_ap"][::10])  # both ends are plain searches
    assert plain.scores["mean_ap"][1:-1] != pytest.approx(given.scores["mean_ap"][1:-1], abs=1e-4)
    with pytest.raises(DataError, match="rule 'best': expected auto, plain, quantiles, calibrated, z_score"):
        backfilling_curve(new, old, new, labels, labels, rule="best")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="rule 'z_score': works with cosine only"):
        backfilling_curve(new, old, new, labels, labels, rule="z_score", distance="l2")
    assert backfilling_curve(new, old, new, labels, labels, distance="l2").rule == "plain"
