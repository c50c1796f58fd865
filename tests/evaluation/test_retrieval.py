"""Retrieval metrics equal a slow oracle and scikit-learn, ties and ways of counting included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.evaluation.oracles import Floats, average_precision_score, clustered, oracle, same

from nobackfill.arrays import unit
from nobackfill.errors import DataError
from nobackfill.evaluation import counting, retrieval_metrics, search
from nobackfill.evaluation.distances import comparable
from nobackfill.evaluation.relevance import by_label
from nobackfill.evaluation.retrieval import summarise
from nobackfill.evaluation.search import empty_ranks, repeated


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Floats, NDArray[Any], NDArray[Any]]:
    """Queries along an axis, items on a coarse grid: each score is one rounded quotient, so what ties, ties exactly."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    queries, items = draw(st.integers(1, 12)), draw(st.integers(2, 25))
    query_dim, gallery_dim = draw(st.sampled_from([(2, 2), (3, 5), (5, 3)]))
    grid = generator.integers(-1, 2, (items, gallery_dim)).astype(np.float32)
    grid[:, 0] = 1  # never zero, on any prefix
    classes = draw(st.integers(1, 4))
    query_labels, gallery_labels = generator.integers(0, classes, queries), generator.integers(0, classes, items)
    return axes(generator, queries, query_dim), grid, query_labels, gallery_labels


def axes(generator: np.random.Generator, count: int, dim: int) -> Floats:
    """Vectors ±2^j along one of the first two axes."""
    vectors = np.zeros((count, dim), np.float32)
    vectors[np.arange(count), generator.integers(0, 2, count)] = generator.choice([-4.0, -1.0, 1.0, 2.0], count)
    return vectors


@given(cases())
@settings(max_examples=300, deadline=None)
def test_equals_the_oracle_and_scikit_learn__ties_included(case: Any) -> None:
    ranks, precisions = oracle(case[0], case[1], case[2], case[3], exclude_self=False)
    if not any(ranks):
        with pytest.raises(DataError, match="no query has a match"):
            retrieval_metrics(*case)
        return
    metrics = retrieval_metrics(*case, topk=(1, 2, 5))
    assert metrics.first_match.tolist() == ranks
    np.testing.assert_allclose(metrics.average_precision, precisions, atol=1e-9)
    counted = [rank for rank in ranks if rank]
    assert metrics.queries == len(counted)
    assert metrics.without_match == len(ranks) - len(counted)
    for k, share in metrics.cmc.items():
        assert share == pytest.approx(sum(rank <= k for rank in counted) / len(counted))
    assert metrics.mean_ap == pytest.approx(np.nanmean(precisions))


@given(cases())
@settings(max_examples=100, deadline=None)
def test_a_query_never_finds_itself(case: Any) -> None:
    labels = case[3]
    gallery = axes(np.random.default_rng(len(labels)), len(labels), 3)
    ranks, precisions = oracle(gallery, gallery, labels, labels, exclude_self=True)
    if not any(ranks):
        return
    metrics = retrieval_metrics(gallery, gallery, labels, labels, exclude_self=True)
    assert metrics.first_match.tolist() == ranks
    np.testing.assert_allclose(metrics.average_precision, precisions, atol=1e-9)


def test_equals_scikit_learn_on_clustered_vectors() -> None:
    vectors, labels = clustered()
    metrics = retrieval_metrics(vectors, vectors[:, :8], labels, labels, exclude_self=True)
    ranks, precisions = oracle(vectors, vectors[:, :8], labels, labels, exclude_self=True, digits=15)
    assert metrics.first_match.tolist() == ranks
    np.testing.assert_allclose(metrics.average_precision, precisions, atol=1e-4)


@pytest.mark.parametrize("block", [16, 48, 1024])
def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    vectors, labels = clustered()
    expected = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)
    monkeypatch.setattr(search, "BLOCK", block)
    same(retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True), expected)


def test_both_ways_of_counting_agree() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        items = random.integers(0, 30, 200).astype(np.float32)
        matches = np.sort(random.choice(items, random.integers(1, 40)))
        items = items[items >= matches[0]]
        found = []
        for count in (counting._count_by_comparing, counting._count_by_searching):
            above = np.full(len(matches), -1)
            count(items, len(items), matches, above)
            found.append(above.tolist())
        assert found[0] == found[1] == [int((items >= match).sum()) for match in matches]


def test_many_matches_are_counted_by_searching() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 3000)  # more matches a query than `counting.FEW`
    gallery = random.integers(-9, 10, (3000, 3)).astype(np.float32)  # many of them alike
    gallery[:, 2] = 1
    queries = axes(random, 40, 3)
    found = retrieval_metrics(queries, gallery, labels[:40], labels)
    scores = unit(queries, "") @ unit(gallery, "").T  # one value of each query is not zero: nothing is rounded twice
    for i in range(40):
        assert found.average_precision[i] == pytest.approx(average_precision_score(labels == labels[i], scores[i]))


@pytest.mark.train
@given(cases(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_device_s_way_equals_the_compiled_one(case: Any, exclude_self: bool) -> None:
    if exclude_self:
        gallery = axes(np.random.default_rng(len(case[3])), len(case[3]), 3)
        case = (gallery, gallery, case[3], case[3])
    try:
        expected = retrieval_metrics(*case, exclude_self=exclude_self, topk=(1, 3, 5))
    except DataError:
        return
    relevance = by_label(case[2], case[3], len(case[0]), len(case[1]))
    query, gallery = comparable(case[0], case[1])
    own = np.arange(len(query)) if exclude_self else np.full(len(query), -1)
    ranks = empty_ranks(len(query), (1, 3, 5))
    search._on_device(query, gallery, relevance, own, np.array([1, 3, 5]), ranks, "cpu")
    same(summarise(ranks, (1, 3, 5)), expected)


@given(cases(), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_figures_with_a_cut_off_equal_those_of_a_sorted_list(case: Any, k: int) -> None:
    query, gallery = comparable(case[0], case[1])
    recalls, gains, cut = [], [], []
    for vector, label in zip(query, case[2], strict=True):
        match = case[3] == label
        order = sorted(range(len(gallery)), key=lambda i: (-float(vector @ gallery[i]), bool(match[i])))
        ranked = match[order]
        r = int(ranked.sum())
        if not r:
            continue
        recalls.append(ranked[:k].sum() / r)
        gain = sum(1 / math.log2(place + 2) for place in range(k) if place < len(ranked) and ranked[place])
        gains.append(gain / sum(1 / math.log2(place + 2) for place in range(min(k, r))))
        cut.append(sum(ranked[: place + 1].mean() for place in range(r) if ranked[place]) / r)
    if not recalls:
        return
    metrics = retrieval_metrics(*case, topk=(k,))
    assert metrics.recall[k] == pytest.approx(np.mean(recalls))
    assert metrics.ndcg[k] == pytest.approx(np.mean(gains))
    assert metrics.mean_ap_at_r == pytest.approx(np.mean(cut))


@given(st.integers(0, 2**32), st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_order_and_duplicates_of_real_vectors_change_nothing(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    vectors, labels = random.normal(size=(n, 24)).astype(np.float32), random.integers(0, 5, n)
    queries, query_labels = random.normal(size=(30, 24)).astype(np.float32), labels[random.integers(0, n, 30)]
    expected = retrieval_metrics(queries, vectors, query_labels, labels)
    order = random.permutation(n)
    same(retrieval_metrics(queries, vectors[order], query_labels, labels[order]), expected)
    twice = np.concatenate([vectors, vectors[order]])
    both = np.concatenate([labels, labels[order]])
    # Each item and its copy tie exactly: as if every rank were doubled.
    found = retrieval_metrics(queries, twice, query_labels, both)
    np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-12)
    assert found.first_match.tolist() == (2 * expected.first_match - 1).tolist()
    turn = random.permutation(30)
    again = retrieval_metrics(queries[turn], vectors, query_labels[turn], labels)
    assert again.first_match.tolist() == expected.first_match[turn].tolist()


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 3))
def test_copies_are_found(seed: int, n: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.integers(-1, 2, (n, dim)).astype(np.float32) * random.choice([-1, 1], (n, 1)).astype(np.float32)
    seen: dict[tuple[float, ...], int] = {}
    expected = [(row, seen.setdefault(tuple(each), row)) for row, each in enumerate(vectors.tolist())]
    copies, originals = repeated(vectors)
    found = list(zip(copies.tolist(), originals.tolist(), strict=True))
    assert found == [(row, first) for row, first in expected if row != first]


@pytest.mark.gpu
@pytest.mark.train
def test_on_a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    vectors, labels = clustered(3000)
    expected = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)
    found = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True, device="cuda")
    assert found.mean_ap == pytest.approx(expected.mean_ap, abs=1e-5)
    assert np.mean(found.first_match != expected.first_match) < 1e-3  # scores of another matrix product


def test_random_vectors_equal_scikit_learn() -> None:
    random = np.random.default_rng(1)
    vectors, labels = random.normal(size=(700, 20)).astype(np.float32), random.integers(0, 7, 700)
    found = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)
    scores = unit(vectors, "") @ unit(vectors, "").T
    for i in range(700):
        others = np.arange(700) != i
        expected = average_precision_score(labels[others] == labels[i], scores[i, others])
        assert found.average_precision[i] == pytest.approx(expected, abs=2e-3)
