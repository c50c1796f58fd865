from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nobackfill.errors import DataError
from nobackfill.evaluation import RetrievalMetrics, rank, retrieval_metrics


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
        "weak": [search(0.3, seed) for seed in seeds],
        "strong": [search(1.5, seed) for seed in seeds],
        "twin": [search(1.5, seed) for seed in seeds],
        "strong again": [search(1.5, seed + 10) for seed in seeds],
    }
    found = rank(searches, "mean_ap")
    assert found.seeds == 3
    means = {name: np.mean([each.scores()["mean_ap"] for each in runs]) for name, runs in searches.items()}
    assert found.scores == pytest.approx(means)
    assert list(found.methods) == sorted(searches, key=lambda name: -means[name])
    for (higher, lower), difference in found.differences.items():
        assert found.methods.index(higher) < found.methods.index(lower)
        assert difference.mean == pytest.approx(means[higher] - means[lower])
        assert difference.low <= difference.mean <= difference.high
    same = found.differences["strong", "twin"]
    assert (same.mean, same.low, same.high, same.word) == (0, 0, 0, "cannot tell")  # paired: level to the last digit
    assert all(found.differences[name, "weak"].word == "better" for name in ("strong", "twin", "strong again"))
    assert set(found.level_with("strong")) == {"twin", "strong again"}
    assert found.level_with("weak") == []


@given(st.permutations(["a", "b", "c"]), st.sampled_from(["top1", "top5", "mean_ap"]))
def test_the_order_of_the_methods_decides_nothing(order: list[str], score: str) -> None:
    qualities = {"a": 0.2, "b": 0.9, "c": 1.6}
    searches = {name: [search(quality, seed) for seed in (0, 1)] for name, quality in qualities.items()}
    expected = rank(searches, score, replicates=50)
    found = rank({name: searches[name] for name in order}, score, replicates=50)
    assert found.methods == expected.methods
    for pair, difference in expected.differences.items():
        other = found.differences[pair]
        assert (other.mean, other.low, other.high) == pytest.approx((difference.mean, difference.low, difference.high))


def test_searches_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(DataError, match="as many seeds"):
        rank({"a": [search(1, 0)], "b": [search(1, 0), search(1, 1)]}, "top1")
    with pytest.raises(DataError, match="the same queries"):
        rank({"a": [search(1, 0)], "b": [search(1, 0, n=140)]}, "top1")
