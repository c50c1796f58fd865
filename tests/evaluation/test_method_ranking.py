from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nobackfill.errors import DataError
from nobackfill.evaluation import RetrievalMetrics, rank_methods, retrieval_metrics
from nobackfill.evaluation.scores import SCORES


def search(quality: float, seed: int, n: int = 150) -> RetrievalMetrics:
    """One training run: the queries are the same for every quality and seed, the noise is the seed's."""
    labels = np.random.default_rng(9).integers(0, 5, n)
    centres = np.random.default_rng(8).normal(size=(5, 6))
    noise = np.random.default_rng(seed).normal(size=(n, 6))
    vectors = quality * centres[labels] + noise
    return retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)


def test_a_ranking_tells_what_is_real() -> None:
    seeds = range(3)
    searches = {
        "weak": {seed: search(0.3, seed) for seed in seeds},
        "strong": {seed: search(1.5, seed) for seed in seeds},
        "twin": {seed: search(1.5, seed) for seed in seeds},
        "strong again": {seed: search(1.5, seed + 10) for seed in seeds},
    }
    ranking = rank_methods(searches, "mean_ap")
    means = {name: np.mean([each.scores()["mean_ap"] for each in runs.values()]) for name, runs in searches.items()}
    assert {each.method: each.score for each in ranking.methods} == pytest.approx(means)
    order = [each.method for each in ranking.methods]
    assert order == sorted(searches, key=lambda name: -means[name])
    assert {each.seeds for each in ranking.methods} | {pair.seeds for pair in ranking.pairs} == {3}
    assert len(ranking.pairs) == 6
    for pair in ranking.pairs:
        assert order.index(pair.method) < order.index(pair.against)
        assert pair.difference.mean == pytest.approx(means[pair.method] - means[pair.against])
        assert pair.difference.low <= pair.difference.mean <= pair.difference.high
    same = ranking.difference("strong", "twin")
    assert same is not None
    assert (same.mean, same.low, same.high, same.decision) == (0, 0, 0, "cannot tell")  # level to the last digit
    for name in ("strong", "twin", "strong again"):
        lead, back = ranking.difference(name, "weak"), ranking.difference("weak", name)
        assert lead is not None
        assert back is not None
        assert (lead.decision, back.decision) == ("better", "worse")
        assert (back.mean, back.low, back.high) == (-lead.mean, -lead.high, -lead.low)
    assert set(ranking.level_with("strong")) == {"twin", "strong again"}
    assert ranking.level_with("weak") == []


def test_methods_of_different_numbers_of_seeds() -> None:
    searches = {
        "five": {seed: search(1.0, seed) for seed in range(5)},
        "three": {seed: search(1.2, seed + 20) for seed in range(3)},
        "other five": {seed: search(0.8, seed + 40) for seed in range(5)},
        "late": {9: search(1.0, 60)},
    }
    ranking = rank_methods(searches, "mean_ap", replicates=100)
    assert {each.method: each.seeds for each in ranking.methods} == {"five": 5, "three": 3, "other five": 5, "late": 1}
    for each in ranking.methods:
        expected = np.mean([one.mean_ap for one in searches[each.method].values()])  # over all of its own
        assert each.score == pytest.approx(expected)
    seeds = {frozenset((pair.method, pair.against)): pair.seeds for pair in ranking.pairs}
    names = ("five", "three"), ("five", "other five"), ("three", "other five")
    assert seeds == dict(zip(map(frozenset, names), (3, 5, 3), strict=True))
    assert ranking.difference("five", "late") is None  # no seed in common: nothing to pair
    assert "late" in ranking.level_with("five")
    # A pair's interval is that of the seeds it has in common, whoever else is in the table.
    shorter = {name: {seed: searches[name][seed] for seed in range(3)} for name in ("five", "three")}
    alone = rank_methods(shorter, "mean_ap", replicates=100).difference("five", "three")
    among = ranking.difference("five", "three")
    assert alone is not None
    assert among is not None
    assert (among.mean, among.low, among.high) == pytest.approx((alone.mean, alone.low, alone.high))


@given(st.permutations(["a", "b", "c"]), st.sampled_from(list(SCORES)))
def test_the_order_of_the_methods_decides_nothing(order: list[str], score: str) -> None:
    qualities = {"a": 0.2, "b": 0.9, "c": 1.6}
    searches = {name: {seed: search(quality, seed) for seed in (0, 1)} for name, quality in qualities.items()}
    expected = rank_methods(searches, score, replicates=50)
    found = rank_methods({name: searches[name] for name in order}, score, replicates=50)
    assert found.methods == expected.methods
    for pair in expected.pairs:
        other = found.difference(pair.method, pair.against)
        assert other is not None
        own = pair.difference
        assert (other.mean, other.low, other.high) == pytest.approx((own.mean, own.low, own.high))


def test_searches_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(DataError, match="the same queries"):
        rank_methods({"a": {0: search(1, 0)}, "b": {0: search(1, 0, n=140)}}, "top1")
