"""What retrieval_metrics takes and refuses: relevance, half precision, prefixes, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluation.oracles import clustered, oracle, same

from nobackfill.errors import DataError
from nobackfill.evaluation import retrieval_metrics


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
        ([[0], [[1], [0, 1]], [1]], "query 1: expected item numbers, found lists of unequal lengths"),
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
    with pytest.raises(DataError, match="found those of the query only"):
        retrieval_metrics(GOOD, GOOD, [0, 1, 2])
    with pytest.raises(DataError, match="found both"):
        retrieval_metrics(GOOD, GOOD, [0, 1, 2], relevant=[[0], [1], [2]])
