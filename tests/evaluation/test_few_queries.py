"""Intervals of few queries, which a plain bootstrap makes too narrow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nobackfill.evaluation import paired_bootstrap, retrieval_metrics
from nobackfill.evaluation.assess import assess
from nobackfill.evaluation.bootstrap import NORMAL, _spread
from nobackfill.evaluation.comparison import FEWEST, Comparison


@pytest.mark.parametrize("queries", [6, 10, 20, 100, 10_000])
def test_replicates_are_as_wide_as_student_s_interval(queries: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    student = stats.t.ppf(0.975, queries - 1) / stats.norm.ppf(0.975)
    assert pytest.approx(student * math.sqrt(queries / (queries - 1)), rel=2e-3) == _spread(queries)
    assert pytest.approx(stats.norm.ppf(0.975), abs=1e-6) == NORMAL


def test_the_spread_is_around_the_mean() -> None:
    values = np.random.default_rng(0).uniform(size=(1, 1, 8))
    means, drawn = paired_bootstrap(values, replicates=4000)
    width = drawn.std() / (values.std(ddof=1) / math.sqrt(8))
    assert means[0] == values.mean()
    assert drawn.mean() == pytest.approx(means[0], abs=0.02)
    assert width == pytest.approx(_spread(8) * math.sqrt(7 / 8), rel=0.05)


@pytest.mark.parametrize("queries", [8, 12])
def test_few_queries_without_a_difference_are_told_apart_as_seldom_as_many(queries: int) -> None:
    random = np.random.default_rng(1)
    wrong = 0
    for trial in range(400):
        table = {name: random.uniform(size=(1, queries)) for name in "ab"}
        wrong += Comparison(table, replicates=300, seed=trial).difference("a", "b").decision != "cannot tell"
    assert wrong <= 0.09 * 400  # 11 % without the spread


@pytest.mark.parametrize(("better", "decision"), [(1, "cannot tell"), (5, "cannot tell"), (6, "better")])
@pytest.mark.parametrize("queries", [6, 200])
def test_what_fewer_than_six_queries_say_may_be_chance(queries: int, better: int, decision: str) -> None:
    before, after = np.zeros((1, queries)), np.zeros((1, queries))
    after[0, :better] = 1
    compared = Comparison({"before": before, "after": after})
    difference = compared.difference("after", "before")
    assert FEWEST == 6
    assert (difference.mean, difference.decision) == (better / queries, decision)
    back = compared.difference("before", "after")
    assert (back.low, back.high) == pytest.approx((-difference.high, -difference.low))


def test_an_interval_of_a_score_ends_where_scores_do() -> None:
    values = np.array([[1.0] * 9 + [0.0]])
    compared = Comparison({"nine": values, "one": 1 - values})
    assert (compared.interval("nine").high, compared.interval("one").low) == (1, 0)


def test_one_query_ships_nothing() -> None:
    gallery = np.eye(4, dtype=np.float32)
    labels = np.array([0, 1, 2, 3])
    cells = {
        cell: retrieval_metrics(np.array([query], np.float32), gallery, np.array([3]), labels)
        for cell, query in (("old/old", [4, 3, 2, 1]), ("new/old", [4, 3, 1, 2]))
    }
    assert cells["old/old"].scores()["mean_ap"] < cells["new/old"].scores()["mean_ap"]
    assert assess([cells]).verdict.decision == "do not ship"
