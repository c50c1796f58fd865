"""Arguments of the evaluation that look right and are not."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from nobackfill.errors import ConfigError, DataError
from nobackfill.evaluation import backfilling_curve, compare, retrieval_metrics
from nobackfill.evaluation.backfilling import MAX_QUERIES, mean_curve
from nobackfill.evaluation.relevance import by_items, by_label
from nobackfill.evaluation.upgrade import average_compatibility

RANDOM = np.random.default_rng(0)
OLD, NEW = RANDOM.normal(size=(40, 4)), RANDOM.normal(size=(40, 6))
LABELS = np.arange(40) % 5


@pytest.mark.parametrize("distance", ["Cosine", "dot", "ip", "euclidean", ""])
def test_an_unknown_distance_is_refused(distance: Any) -> None:
    for call in (
        lambda: retrieval_metrics(OLD, OLD, LABELS, LABELS, distance=distance),
        lambda: compare(OLD, NEW, LABELS, exclude_self=True, distance=distance),
        lambda: backfilling_curve(NEW, OLD, NEW, LABELS, LABELS, exclude_self=True, distance=distance),
    ):
        with pytest.raises(ConfigError, match=f"distance '{distance}': expected one of cosine, l2"):
            call()


@pytest.mark.parametrize(
    "fractions", [(), (1,), (0, 25, 50, 100), (1, 0.5, 0), (-0.5, 0.5), (0, 0.5, 0.5), (0, np.nan)]
)
def test_fractions_ascend_from_0_to_1(fractions: Any) -> None:
    with pytest.raises(DataError, match="fractions: expected at least two, ascending, from 0 to 1, found"):
        backfilling_curve(NEW, OLD, NEW, LABELS, LABELS, exclude_self=True, fractions=fractions)


def test_curves_of_other_fractions_have_no_mean() -> None:
    curves = [
        backfilling_curve(NEW, OLD, NEW, LABELS, LABELS, exclude_self=True, fractions=(0, middle, 1))
        for middle in (0.1, 0.5)
    ]
    with pytest.raises(
        DataError, match=r"curves of different fractions have no mean: \[0.0, 0.1, 1.0\] and \[0.0, 0.5"
    ):
        mean_curve(curves)


def test_a_curve_rests_on_queries_that_have_a_match() -> None:
    """Two of thousands: thinning at random would nearly always lose both."""
    count = MAX_QUERIES + 1000
    random = np.random.default_rng(1)
    old, new = random.normal(size=(50, 4)), random.normal(size=(50, 6))
    queries = random.normal(size=(count, 6))
    labels = np.full(count, 99)
    labels[[17, 4711]] = 3
    for seed in range(3):
        curve = backfilling_curve(queries, old, new, labels, np.arange(50) % 5, seed=seed, rule="plain")
        assert curve.queries == 2
    with pytest.raises(DataError, match="no query has a match"):
        backfilling_curve(queries, old, new, np.full(count, 99), np.arange(50) % 5, rule="plain")


def test_which_queries_have_a_match() -> None:
    relevance = by_label([0, 1, 1, 2], [0, 1, 1, 3], 4, 4)
    assert relevance.any().tolist() == [True, True, True, False]
    assert relevance.any(exclude_self=True).tolist() == [False, True, True, False]
    lists = by_items([[0], [0], [], [3, 1]], 4, 4)
    assert lists.any().tolist() == [True, True, False, True]
    assert lists.any(exclude_self=True).tolist() == [False, True, False, True]
    assert by_items([[], []], 2, 2).any(exclude_self=True).tolist() == [False, False]


def test_labels_are_needed_once_where_queries_are_the_gallery() -> None:
    found, expected = compare(OLD, NEW, LABELS), compare(OLD, NEW, LABELS, LABELS)
    assert found.scores == expected.scores
    with pytest.raises(DataError, match="found those of the query only"):
        compare((OLD, OLD[:20]), (NEW, NEW[:20]), LABELS)


def test_an_item_of_one_array_never_finds_itself() -> None:
    found, apart = compare(OLD, NEW, LABELS), compare((OLD, OLD.copy()), (NEW, NEW.copy()), LABELS, LABELS)
    assert found.scores == compare(OLD, NEW, LABELS, exclude_self=True).scores
    assert found.scores["old/old"]["top1"].mean < 1
    assert apart.scores["old/old"]["top1"].mean == 1  # queries of their own find their copies
    assert compare(OLD, NEW, LABELS, exclude_self=False).scores == apart.scores


def test_queries_and_gallery_may_come_as_a_list() -> None:
    old, new = cast("Any", [OLD[:10], OLD]), cast("Any", [NEW[:10], NEW])
    expected = compare((OLD[:10], OLD), (NEW[:10], NEW), LABELS[:10], LABELS)
    assert compare(old, new, LABELS[:10], LABELS).scores == expected.scores
    # Two vectors, not two tables.
    assert compare(OLD[:2].tolist(), NEW[:2].tolist(), [0, 0], exclude_self=True).scores["old/old"]["top1"].mean == 1


def test_scores_and_cut_offs_are_known() -> None:
    metrics = retrieval_metrics(OLD, OLD, LABELS, LABELS, exclude_self=True, topk=np.array([1, 5]))  # type: ignore[arg-type]
    assert set(metrics.cmc) == {1, 5}
    with pytest.raises(DataError, match="score 'map': no such score; did you mean 'mean_ap'"):
        metrics.per_query("map")
    for topk in ((1.5,), (), "5", (True,)):
        with pytest.raises(DataError, match="topk: expected a list of whole numbers of at least 1"):
            retrieval_metrics(OLD, OLD, LABELS, LABELS, topk=topk)  # type: ignore[arg-type]


def test_few_replicates_give_no_interval() -> None:
    with pytest.raises(DataError, match="replicates: expected at least 100, found 1"):
        compare(OLD, NEW, LABELS, exclude_self=True, replicates=1)


def test_one_generation_has_no_compatibility() -> None:
    with pytest.raises(DataError, match="expected two generations or more, found one"):
        average_compatibility([[0.5]])
