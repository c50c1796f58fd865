from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nobackfill.arrays import unit
from nobackfill.errors import DataError
from nobackfill.evaluation import RetrievalMetrics, counting, retrieval_metrics, search
from nobackfill.evaluation.distances import comparable
from nobackfill.evaluation.relevance import by_label
from nobackfill.evaluation.retrieval import summarise
from nobackfill.evaluation.search import empty_ranks


def average_precision_score(matches: Any, scores: Any) -> float:
    """The oracle, scikit-learn's; where it is not installed, what is compared with it is skipped."""
    return float(pytest.importorskip("sklearn.metrics").average_precision_score(matches, scores))


Floats = NDArray[np.float32]


def oracle(
    query: Floats,
    gallery: Floats,
    query_labels: NDArray[Any],
    gallery_labels: NDArray[Any],
    exclude_self: bool,
    digits: int = 5,
) -> tuple[list[int], list[float]]:
    """Rank of the first match and average precision of each query, by sorting in Python and by scikit-learn."""
    shared = min(query.shape[1], gallery.shape[1])
    ranks, precisions = [], []
    for i, vector in enumerate(query[:, :shared]):
        items = []
        for j, other in enumerate(gallery[:, :shared]):
            if not (exclude_self and i == j):
                score = float(vector @ other / (np.linalg.norm(vector) * np.linalg.norm(other)))
                items.append((round(score, digits), bool(query_labels[i] == gallery_labels[j])))
        if not any(match for _, match in items):
            ranks.append(0)
            precisions.append(math.nan)
            continue
        ordered = sorted(items, key=lambda item: (-item[0], item[1]))  # a tied match comes last
        ranks.append(next(rank for rank, (_, match) in enumerate(ordered, 1) if match))
        scores, matches = zip(*items, strict=True)
        precisions.append(average_precision_score(matches, scores))
    return ranks, precisions


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


def clustered(n: int = 300, dim: int = 16, classes: int = 10) -> tuple[Floats, NDArray[Any]]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    centres = generator.normal(size=(classes, dim))
    return (centres[labels] + generator.normal(size=(n, dim))).astype(np.float32), labels


def test_equals_scikit_learn_on_clustered_vectors() -> None:
    vectors, labels = clustered()
    metrics = retrieval_metrics(vectors, vectors[:, :8], labels, labels, exclude_self=True)
    ranks, precisions = oracle(vectors, vectors[:, :8], labels, labels, exclude_self=True, digits=15)
    assert metrics.first_match.tolist() == ranks
    np.testing.assert_allclose(metrics.average_precision, precisions, atol=1e-4)


def same(found: RetrievalMetrics, expected: RetrievalMetrics) -> None:
    """Every figure, to the last bit where it is a count."""
    assert found.first_match.tolist() == expected.first_match.tolist()
    np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-12)
    for name in ("recall", "ndcg", "cmc"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-12)
    assert found.mean_ap_at_r == pytest.approx(expected.mean_ap_at_r, abs=1e-12)
    assert (found.queries, found.without_match) == (expected.queries, expected.without_match)


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


def test_relevance_as_a_table_and_as_lists() -> None:
    vectors, labels = clustered(80)
    expected = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)
    table = labels[:, None] == labels[None]
    lists = [np.flatnonzero(row).tolist() * 2 for row in table]  # an item named twice is one match
    for relevant in (table, lists):
        same(retrieval_metrics(vectors, vectors, relevant=relevant, exclude_self=True), expected)
    lists[3] = []
    one_less = retrieval_metrics(vectors[:20], vectors, relevant=lists[:20])
    assert (one_less.queries, one_less.without_match) == (19, 1)
    assert np.isnan(one_less.average_precision[3])
    assert one_less.first_match[3] == 0


@pytest.mark.parametrize(
    ("relevant", "message"),
    [
        (np.ones((3, 2), np.bool_), r"relevant: expected bool \[3, 3\], found bool \[3, 2\]"),
        (np.ones((3, 3)), r"relevant: expected bool \[3, 3\], found float64 \[3, 3\]"),
        ([[0], [1]], "expected a list for each of the 3 queries, found 2 lists"),
        ([[0], [3], [1]], "query 1: item 3 is outside the gallery's range 0…2"),
        ([[0], [-1], [1]], "query 1: item -1 is outside"),
        ([[0], ["a"], [1]], "query 1: expected item numbers"),
        ([[], [], []], "no query has a match"),
    ],
)
def test_wrong_relevance_is_named(relevant: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        retrieval_metrics(GOOD, GOOD, relevant=relevant)


def test_half_precision_and_mapped_files(tmp_path: Path) -> None:
    vectors, labels = clustered()
    half = vectors.astype(np.float16)
    expected = retrieval_metrics(half.astype(np.float32), half.astype(np.float32), labels, labels, exclude_self=True)
    same(retrieval_metrics(half, half, labels, labels, exclude_self=True), expected)
    np.save(tmp_path / "half.npy", half)
    mapped = np.load(tmp_path / "half.npy", mmap_mode="r")
    same(retrieval_metrics(mapped, mapped, labels, labels, exclude_self=True), expected)
    ranks, _ = oracle(half.astype("f8"), half.astype("f8"), labels, labels, exclude_self=True, digits=15)
    assert retrieval_metrics(half, half, labels, labels, exclude_self=True).first_match.tolist() == ranks


def test_random_vectors_equal_scikit_learn() -> None:
    random = np.random.default_rng(1)
    vectors, labels = random.normal(size=(700, 20)).astype(np.float32), random.integers(0, 7, 700)
    found = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)
    scores = unit(vectors, "") @ unit(vectors, "").T
    for i in range(700):
        others = np.arange(700) != i
        expected = average_precision_score(labels[others] == labels[i], scores[i, others])
        assert found.average_precision[i] == pytest.approx(expected, abs=2e-3)


def test_worked_example() -> None:
    # Ranking of the one query: match, other, match → AP = (1/1 + 2/3) / 2.
    gallery = np.array([[1, 0], [1, 0.5], [1, 1]], np.float32)
    metrics = retrieval_metrics(np.array([[1, 0]], np.float32), gallery, [0], [0, 1, 0], topk=(1, 2, 5))
    assert metrics.cmc == {1: 1.0, 2: 1.0, 5: 1.0}
    assert metrics.recall == {1: 0.5, 2: 0.5, 5: 1.0}
    assert metrics.mean_ap_at_r == 0.5
    assert metrics.ndcg[2] == pytest.approx(0.613, abs=5e-4)
    assert metrics.mean_ap == pytest.approx((1 + 2 / 3) / 2)


def test_scale_of_a_vector_changes_nothing_and_prefix_is_what_counts() -> None:
    vectors, labels = clustered(60)
    scaled = vectors * np.linspace(0.1, 9, 60, dtype=np.float32)[:, None]
    padded = np.concatenate([vectors, np.full((60, 4), 7, np.float32)], axis=1)
    expected = retrieval_metrics(vectors, vectors, labels, labels).mean_ap
    assert retrieval_metrics(scaled, vectors, labels, labels).mean_ap == pytest.approx(expected)
    for extreme in (1e20, 1e-25):
        assert retrieval_metrics(vectors * np.float32(extreme), vectors, labels, labels).mean_ap == pytest.approx(
            expected
        )
    assert retrieval_metrics(padded, vectors, labels, labels).mean_ap == pytest.approx(expected)


GOOD = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD, GOOD[:0], [0, 1, 2], []), r"gallery: expected floats \[n, dim\]"),
        ((GOOD[0], GOOD, [0], [0, 1, 2]), r"query: expected floats \[n, dim\]"),
        ((GOOD, GOOD, [0, 1], [0, 1, 2]), r"query labels: expected integers \[3\], found int64 \[2\]"),
        ((GOOD, GOOD, [0, 1, 2], [0.5, 1, 2]), "gallery labels: expected integers"),
        ((GOOD.astype(int), GOOD, [0, 1, 2], [0, 1, 2]), "query: expected floats"),
        (
            (np.where(GOOD == 1, np.nan, 0).astype("f4"), GOOD, [0, 1, 2], [0, 1, 2]),
            "query: row 0 holds a value that is",
        ),
        ((GOOD, GOOD * [[1], [0], [1]], [0, 1, 2], [0, 1, 2]), "gallery: row 1 is zero"),
        ((GOOD, GOOD, [0, 1, 2], [5, 6, 7]), "no query has a match"),
    ],
)
def test_bad_input_is_named(arguments: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        retrieval_metrics(*arguments)


def test_other_bad_arguments() -> None:
    with pytest.raises(DataError, match="exclude_self"):
        retrieval_metrics(GOOD, GOOD[:2], [0, 1, 2], [0, 1], exclude_self=True)
    with pytest.raises(DataError, match="topk"):
        retrieval_metrics(GOOD, GOOD, [0, 1, 2], [0, 1, 2], topk=(0,))
    with pytest.raises(DataError, match="found neither"):
        retrieval_metrics(GOOD, GOOD, [0, 1, 2])
    with pytest.raises(DataError, match="found both"):
        retrieval_metrics(GOOD, GOOD, [0, 1, 2], relevant=[[0], [1], [2]])
