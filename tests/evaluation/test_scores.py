"""The table of scores."""

from __future__ import annotations

import numpy as np
import pytest

from nobackfill.evaluation import retrieval_metrics
from nobackfill.evaluation.scores import CUTOFFS, DECISIVE, FIT_SCORES, MAIN, SCORES, TABLE, title


def test_a_score_s_mean_is_the_metric_of_its_name() -> None:
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(60, 5)), random.integers(0, 40, 60)
    found = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True, topk=(1, 5, 10))
    assert 0 < found.without_match < 60
    named = {"top1": found.cmc[1], "top5": found.cmc[5], "top10": found.cmc[10], "mean_ap": found.mean_ap}
    for score in TABLE:
        values = found.per_query(score.key)
        assert (np.isnan(values) == (found.first_match == 0)).all()
        assert np.nanmean(values) == pytest.approx(named[score.key])
    assert found.scores() == pytest.approx({key: named[key] for key in SCORES})


def test_the_table_holds_what_reports_rely_on() -> None:
    keys = [score.key for score in TABLE]
    assert len(set(keys)) == len(keys)
    assert {MAIN, *DECISIVE} <= set(SCORES) & set(FIT_SCORES)
    assert CUTOFFS == (1, 5)
    assert title("mean_ap") == "mAP"
    assert title("of a later version") == "of a later version"
