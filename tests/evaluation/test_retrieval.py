from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from nobackfill.errors import DataError
from nobackfill.evaluation import retrieval, retrieval_metrics

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


@pytest.mark.parametrize("values", [1, 300, 4500, 10**9])
def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    vectors, labels = clustered()
    expected = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)
    monkeypatch.setattr(retrieval, "BLOCK_VALUES", values)
    found = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)
    assert found.first_match.tolist() == expected.first_match.tolist()
    np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-6)


def test_worked_example() -> None:
    # Ranking of the one query: match, other, match → AP = (1/1 + 2/3) / 2.
    gallery = np.array([[1, 0], [1, 0.5], [1, 1]], np.float32)
    metrics = retrieval_metrics(np.array([[1, 0]], np.float32), gallery, [0], [0, 1, 0])
    assert metrics.cmc == {1: 1.0, 5: 1.0}
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
        ((GOOD, GOOD * [[1], [0], [1]], [0, 1, 2], [0, 1, 2]), "gallery: row 1 has norm zero"),
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
