"""Slow retrieval metrics to compare with, and vectors to search."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nobackfill.evaluation import RetrievalMetrics


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


def clustered(n: int = 300, dim: int = 16, classes: int = 10) -> tuple[Floats, NDArray[Any]]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    centres = generator.normal(size=(classes, dim))
    return (centres[labels] + generator.normal(size=(n, dim))).astype(np.float32), labels


def same(found: RetrievalMetrics, expected: RetrievalMetrics) -> None:
    """Every figure, to the last bit where it is a count."""
    assert found.first_match.tolist() == expected.first_match.tolist()
    np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-12)
    for name in ("recall", "ndcg", "cmc"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-12)
    assert found.mean_ap_at_r == pytest.approx(expected.mean_ap_at_r, abs=1e-12)
    assert (found.queries, found.without_match) == (expected.queries, expected.without_match)
