"""Rules to merge old and new scores, against a loop over items."""

from __future__ import annotations

import numpy as np
import pytest

from nobackfill.evaluation import retrieval_metrics
from nobackfill.evaluation.mixing import RULES, Mixed, _standard, _wide, fit_calibration_on, mixing_study

D_O, D, ITEMS = 5, 8, 120


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


@pytest.fixture
def mixed() -> Mixed:
    random = np.random.default_rng(0)
    query, old, new = (unit(random.standard_normal(shape)) for shape in ((7, D), (ITEMS, D_O), (ITEMS, D)))
    fit = unit(random.standard_normal((9, D)))
    relevant = (fit @ new.T + random.standard_normal((9, ITEMS))) > 1
    return Mixed(query, None, old, new, random.random(ITEMS) < 0.4, 0.7, (fit, relevant))


Line = tuple[float, float]  # factor and offset


def by_hand(rule: str, mixed: Mixed, query: int, item: int, calibration: tuple[Line, Line]) -> float:
    q = mixed.query[query].astype(np.float64)
    fresh = bool(mixed.exchanged[item])
    score = float(q @ mixed.new[item]) if fresh else float(q[:D_O] @ mixed.old[item])
    if rule == "scaled":
        return score if fresh else 0.7 * score
    if rule == "cosine":
        return score if fresh else score / float(np.linalg.norm(q[:D_O]))
    if rule == "calibrated":
        factor, offset = calibration[fresh]
        return factor * score + offset
    if rule == "zscore":
        part = mixed.new[mixed.exchanged] @ q if fresh else mixed.old[~mixed.exchanged] @ q[:D_O]
        return (score - float(part.mean())) / float(part.std())
    return score


@pytest.mark.train
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_equals_a_loop(rule: str, mixed: Mixed) -> None:
    query, items = _wide(mixed.query[:, :D_O], mixed.query, mixed, RULES[rule](mixed))
    calibration = fit_calibration_on(mixed.fit_query[0], mixed.old, mixed.new, mixed.fit_query[1])  # old, new
    wanted = [[by_hand(rule, mixed, i, j, calibration) for j in range(ITEMS)] for i in range(len(mixed.query))]
    np.testing.assert_allclose(query @ items.T, wanted, atol=2e-4)


def test_without_items_of_a_part_there_is_nothing_to_standardise(mixed: Mixed) -> None:
    assert _standard(mixed.query, mixed.new[:0]) == (1, 0)


@pytest.mark.train
def test_calibration_finds_the_odds_it_was_made_from() -> None:
    random = np.random.default_rng(1)
    query, old, new = (unit(random.standard_normal(shape)) for shape in ((300, 6), (500, 4), (500, 6)))
    odds = 5 * (query @ new.T) - 1
    relevant = random.random(odds.shape) < 1 / (1 + np.exp(-odds))
    useless, (factor, offset) = fit_calibration_on(query, old, new, relevant)
    assert factor == pytest.approx(5, rel=0.05)
    assert offset == pytest.approx(-1, abs=0.05)
    assert useless[0] < 0.3


@pytest.mark.train
def test_at_both_ends_every_rule_is_a_plain_search() -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 6, ITEMS)
    centres = random.standard_normal((6, D))
    new = unit(centres[labels] + random.standard_normal((ITEMS, D)))
    old = unit(centres[labels][:, :D_O] + random.standard_normal((ITEMS, D_O)))
    rows = mixing_study(new, old, new, labels, labels, old_query=old, exclude_self=True, fractions=(0.0, 0.5, 1.0))
    assert len(rows) == 3 * (len(RULES) + 1)
    halves = np.random.default_rng(0).permutation(ITEMS)
    used = np.sort(halves[: ITEMS // 2])
    for fraction, gallery in ((0.0, old), (1.0, new)):
        plain = [row for row in rows if row["fraction"] == fraction and row["rule"] in RULES]
        assert len({round(float(row["mean_ap"]), 9) for row in plain}) == 1
        whole = retrieval_metrics(new, gallery, labels, labels, exclude_self=True)
        assert plain[0]["mean_ap"] == pytest.approx(whole.per_query("mean_ap")[used].mean(), abs=1e-6)
        missing = "recall_new" if fraction == 0 else "recall_old"
        assert all(np.isnan(float(row[missing])) for row in plain)
