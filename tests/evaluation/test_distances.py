"""Search by Euclidean distance, against a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nobackfill.errors import ConfigError, DataError
from nobackfill.evaluation import backfilling_curve, compare, retrieval_metrics
from nobackfill.evaluation.distances import check_distance, comparable
from nobackfill.evaluation.neighbours import neighbours


def average_precision_score(matches: Any, scores: Any) -> float:
    """The oracle, scikit-learn's; where it is not installed, what is compared with it is skipped."""
    return float(pytest.importorskip("sklearn.metrics").average_precision_score(matches, scores))


def by_hand(
    query: np.ndarray, gallery: np.ndarray, q_labels: np.ndarray, labels: np.ndarray, exclude_self: bool
) -> tuple[list[int], list[float]]:
    """First match (tied non-matches above it; 0 without any) and average precision of each query, in float64."""
    dim = min(query.shape[1], gallery.shape[1])
    first, precision = [], []
    for i, one in enumerate(query.astype(np.float64)):
        items = [j for j in range(len(gallery)) if not (exclude_self and i == j)]
        scores = np.array([-sum((a - b) ** 2 for a, b in zip(one[:dim], gallery[j][:dim], strict=True)) for j in items])
        match = labels[items] == q_labels[i]
        if not match.any():
            first.append(0)
            precision.append(np.nan)
            continue
        best = scores[match].max()
        first.append(int((scores[~match] >= best).sum()) + 1)
        precision.append(float(average_precision_score(match, scores)))
    return first, precision


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([1.0, 0.125, 1024.0]))
@settings(max_examples=60, deadline=None)
def test_euclidean_metrics_equal_a_loop_ties_included(seed: int, exclude_self: bool, unit: float) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(2, 25))
    gallery = (unit * random.integers(-2, 3, (size, 3))).astype(np.float32)  # a coarse grid: many ties
    query = gallery if exclude_self else (unit * random.integers(-2, 3, (9, 4))).astype(np.float32)
    labels = random.integers(0, 3, size)
    q_labels = labels if exclude_self else random.integers(0, 3, 9)
    first, precision = by_hand(query, gallery, q_labels, labels, exclude_self)
    if not any(first):
        return
    found = retrieval_metrics(query, gallery, q_labels, labels, exclude_self=exclude_self, distance="l2")
    assert found.first_match.tolist() == first
    np.testing.assert_allclose(found.average_precision, precision, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 300.0, -5e4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e18])
def test_far_from_the_origin_digits_are_kept(offset: float, scale: float) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 300)
    vectors = random.normal(size=(5, 16))[labels] + 1.5 * random.normal(size=(300, 16))
    vectors = (scale * (vectors + offset)).astype(np.float32)
    exact = vectors.astype(np.float64) / scale
    first, precision = by_hand(exact, exact, labels, labels, True)
    found = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True, distance="l2")
    assert np.mean(found.first_match == first) > 0.99
    np.testing.assert_allclose(found.average_precision, precision, atol=2e-3)


@pytest.fixture
def units() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    labels = random.integers(0, 6, 200)
    made = [random.normal(size=(6, 10))[labels] + random.normal(size=(200, 10)) for _ in range(2)]
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in made)
    return one, other, labels


def test_of_unit_vectors_of_one_size_it_is_the_cosine(units: Any) -> None:
    old, new, labels = units
    upgrades = [compare(old, new, labels, exclude_self=True, distance=name, rule="plain") for name in ("cosine", "l2")]
    for cell, scores in upgrades[0].scores.items():
        for score, interval in scores.items():
            assert upgrades[1].scores[cell][score].mean == pytest.approx(interval.mean, abs=1e-6)
    curves = [upgrade.curve for upgrade in upgrades]
    assert curves[0] is not None
    assert curves[1] is not None
    assert curves[1].area == pytest.approx(curves[0].area, abs=1e-6)
    rows = [neighbours(*comparable(old, new, name), 3) for name in ("cosine", "l2")]
    assert rows[0].shape == (200, 3)


def test_norms_matter_and_widths_are_cut(units: Any) -> None:
    old, new, labels = units
    longer = old * np.linspace(1, 30, 200)[:, None]
    plain, scaled = (retrieval_metrics(new, each, labels, labels, distance="l2") for each in (old, longer))
    assert scaled.mean_ap != pytest.approx(plain.mean_ap, abs=1e-3)
    by_cosine = [retrieval_metrics(new, each, labels, labels).mean_ap for each in (old, longer)]
    assert by_cosine[0] == pytest.approx(by_cosine[1], abs=1e-6)
    wide = np.concatenate([new, 5 * new], axis=1)
    cut = retrieval_metrics(wide, old, labels, labels, distance="l2")
    assert cut.mean_ap == pytest.approx(plain.mean_ap)
    curve = backfilling_curve(wide, old, wide, labels, labels, fractions=(0, 1), distance="l2")
    both = [cut, retrieval_metrics(wide, wide, labels, labels, distance="l2")]
    assert curve.scores["mean_ap"] == pytest.approx([each.mean_ap for each in both], abs=1e-6)


def test_what_has_no_distance_is_refused(units: Any) -> None:
    old, _, labels = units
    spoiled = old.copy()
    spoiled[7, 2] = np.inf
    with pytest.raises(DataError, match="gallery: row 7 holds a value that is not finite"):
        retrieval_metrics(old, spoiled, labels, labels, distance="l2")
    spoiled[7] = 0
    assert retrieval_metrics(old, spoiled, labels, labels, distance="l2").queries == 200  # a zero has a place
    with pytest.raises(ConfigError, match="distance 'dot': expected one of cosine, l2"):
        check_distance("dot")
