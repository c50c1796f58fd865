from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nobackfill.arrays import unit
from nobackfill.errors import DataError
from nobackfill.evaluation import (
    Difference,
    Interval,
    assess,
    backfilling_curve,
    compare,
    paired_bootstrap,
    retrieval_metrics,
)
from nobackfill.evaluation.assess import _classes
from nobackfill.evaluation.scores import DECISIVE
from nobackfill.evaluation.verdict import upgrade_verdict

Floats = NDArray[np.float32]


def models(n: int = 400, quality: float = 1.5, seed: int = 0) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Vectors of an old model [n, 8] and of a compatible, better new one [n, 12] whose prefix resembles the old."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, n)
    centres = random.normal(size=(10, 8))
    old = centres[labels] + 1.5 * random.normal(size=(n, 8))
    prefix = quality * centres[labels] + random.normal(size=(n, 8))
    more = random.normal(size=(10, 4))[labels] + 0.5 * random.normal(size=(n, 4))
    return old.astype(np.float32), np.concatenate([prefix, more], axis=1).astype(np.float32), labels


def test_compare_tells_a_good_upgrade() -> None:
    old, new, labels = models()
    upgrade = compare(old, new, labels, independent=new, exclude_self=True, class_names=[*"abcdefghij"])
    for cell, (query, gallery) in {"old/old": (old, old), "new/old": (new, old), "new/new": (new, new)}.items():
        expected = retrieval_metrics(query, gallery, labels, labels, exclude_self=True).scores()
        found = upgrade.scores[cell]
        assert {score: interval.mean for score, interval in found.items()} == pytest.approx(expected)
        assert all(interval.low < interval.mean < interval.high for interval in found.values())
        if cell != "old/old":
            for score, interval in upgrade.change[cell].items():
                assert interval.mean == pytest.approx(found[score].mean - upgrade.scores["old/old"][score].mean)
    assert upgrade.verdict.decision == "ship"
    assert upgrade.change["new/old"]["mean_ap"].decision == "better"
    gain = upgrade.gain["mean_ap"]
    assert gain is not None
    bound, own, status_quo = (upgrade.scores[cell]["mean_ap"].mean for cell in ("independent", "new/old", "old/old"))
    assert gain.mean == pytest.approx((own - status_quo) / (bound - status_quo))
    assert gain.low < gain.mean < gain.high
    loss = upgrade.loss["top1"]
    assert loss == Interval(0, 0, 0)
    assert upgrade.curve is not None
    assert upgrade.curve.scores["top1"][0] == pytest.approx(upgrade.scores["new/old"]["top1"].mean)
    assert upgrade.curve.scores["top1"][-1] == pytest.approx(upgrade.scores["new/new"]["top1"].mean)


def test_flips_and_classes_equal_a_loop() -> None:
    old, new, labels = models(n=120, quality=0.5)
    upgrade = compare(old, new, labels, exclude_self=True)
    first = {}
    for cell, (query, gallery) in {"old/old": (old, old), "new/old": (new, old), "new/new": (new, new)}.items():
        scores = unit(query[:, : gallery.shape[1]], "") @ unit(gallery, "").T
        np.fill_diagonal(scores, -9)
        first[cell] = labels[scores.argmax(1)] == labels
    for cell in ("new/old", "new/new"):
        negative = np.mean([was and not now for was, now in zip(first["old/old"], first[cell], strict=True)])
        positive = np.mean([now and not was for was, now in zip(first["old/old"], first[cell], strict=True)])
        assert upgrade.flips[cell].negative.mean == pytest.approx(negative)
        assert upgrade.flips[cell].positive.mean == pytest.approx(positive)
        change = upgrade.change[cell]["top1"].mean
        assert change == pytest.approx(positive - negative)
    assert [line.queries for line in sorted(upgrade.classes, key=lambda line: line.label)] == np.bincount(
        labels
    ).tolist()
    for line in upgrade.classes:
        for cell, right in first.items():
            assert line.scores["top1"][cell] == pytest.approx(right[labels == line.label].mean())
    falls = [line.scores["mean_ap"]["new/old"] - line.scores["mean_ap"]["old/old"] for line in upgrade.classes]
    assert falls == sorted(falls)


def test_separate_queries_without_a_new_gallery() -> None:
    old, new, labels = models()
    upgrade = compare((old[:100], old[100:]), (new[:100], None), labels[:100], labels[100:], independent=None)
    assert set(upgrade.scores) == {"old/old", "new/old"}
    assert upgrade.curve is None
    assert upgrade.gain["top1"] is None
    assert upgrade.loss["top1"] is None
    bad = compare((old[:100], old[100:]), (-new[:100], None), labels[:100], labels[100:])
    assert bad.verdict.decision == "do not ship"
    assert "is unknown" in bad.verdict.reasons[-1]


def test_many_matches_by_lists() -> None:
    old, new, labels = models(n=100)
    table = labels[:, None] == labels[None]
    by_table = compare(old, new, relevant=table, exclude_self=True)
    by_labels = compare(old, new, labels, exclude_self=True)
    assert by_table.scores == by_labels.scores
    assert by_table.curve == by_labels.curve
    assert by_table.classes == ()


def test_nothing_to_gain_is_no_gain() -> None:
    old, _, labels = models()
    upgrade = compare(old, old, labels, independent=old, exclude_self=True)
    assert upgrade.gain == {"top1": None, "top5": None, "mean_ap": None}
    assert upgrade.change["new/new"]["top1"] == Difference(0, 0, 0)
    assert upgrade.verdict.decision == "do not ship"


def change(at_once: tuple[float, float], backfilled: tuple[float, float] | None) -> Any:
    def intervals(signs: tuple[float, float]) -> dict[str, Difference]:
        return {
            score: Difference(sign, sign - 0.5, sign + 0.5)
            for score, sign in zip(("top1", "mean_ap"), signs, strict=True)
        }

    cells = {"new/old": intervals(at_once)}
    return cells if backfilled is None else {**cells, "new/new": intervals(backfilled)}


@pytest.mark.parametrize(
    ("at_once", "backfilled", "decision"),
    [
        ((1, 1), (1, 1), "ship"),
        ((1, 0), None, "ship"),
        ((0, 1), (-1, -1), "ship"),
        ((0, 0), (1, 0), "ship and backfill"),
        ((0, 0), (0, 0), "do not ship"),
        ((0, 0), (1, -1), "do not ship"),
        ((0, 0), None, "do not ship"),
        ((1, -1), (1, 1), "do not ship"),
        ((-1, 0), (1, 1), "do not ship"),
    ],
)
def test_verdict(at_once: Any, backfilled: Any, decision: str) -> None:
    found = upgrade_verdict(change(at_once, backfilled))
    assert found.decision == decision
    assert found.reasons[0].startswith("Nothing backfilled (new/old against old/old): top-1 ")
    assert ("+100.0 [+50.0, +150.0] points" in found.reasons[0]) == (1 in at_once)


def test_intervals_cover_the_truth_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        common = random.normal(size=150)
        values = np.stack([common + 0.5 * random.normal(size=150), common + 0.3 + 0.5 * random.normal(size=150)])
        means, drawn = paired_bootstrap(values[:, None, :], replicates=400, seed=trial)
        interval = Interval.of(means[1] - means[0], drawn[:, 1] - drawn[:, 0])
        covered += interval.low <= 0.3 <= interval.high
        assert interval.high - interval.low < 0.35  # pairing takes the common part out; without it 0.5
    assert 0.90 <= covered / 300 <= 0.98


@pytest.mark.parametrize("seeds", [2, 5, 10])
def test_the_variance_between_seeds_is_counted_in_full(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    ratios = []
    for trial in range(200):
        effects = random.normal(size=seeds)
        values = np.broadcast_to(effects[None, :, None], (1, seeds, 50))
        _, drawn = paired_bootstrap(np.ascontiguousarray(values), replicates=300, seed=trial)
        ratios.append(drawn.var() / (1 / seeds))
    assert np.mean(ratios) == pytest.approx(1, abs=0.15)


def test_queries_are_drawn_alike_for_every_score() -> None:
    values = np.random.default_rng(0).normal(size=(2, 1, 40))
    values[1] = values[0] + 3
    means, drawn = paired_bootstrap(values, replicates=50, seed=1)
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], 3)
    np.testing.assert_allclose(means, values.mean((1, 2)))
    again = paired_bootstrap(values, replicates=50, seed=1)[1]
    np.testing.assert_array_equal(again, drawn)


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_curve_equals_a_loop(seed: int, exclude_self: bool) -> None:
    old, new, labels = models(n=60, seed=seed % 1000)
    curve = backfilling_curve(
        new, old, new, labels, labels, exclude_self=exclude_self, fractions=(0, 0.3, 1), seed=seed
    )
    q, o = unit(new, ""), unit(old, "")
    order = np.random.default_rng(seed).permutation(60)
    for position, share in enumerate((0, 0.3, 1)):
        fresh = set(order[: round(share * 60)].tolist())
        right = 0
        counted = [i for i in range(60) if not exclude_self or (labels == labels[i]).sum() > 1]
        for i in counted:
            scores = [
                float(q[i] @ q[j]) if j in fresh else float(q[i, :8] @ o[j])
                for j in range(60)
            ]  # fmt: skip
            if exclude_self:
                scores[i] = -9
            right += labels[int(np.argmax(scores))] == labels[i]
        assert curve.scores["top1"][position] == pytest.approx(right / len(counted))
    first, second, last = curve.scores["top1"]
    assert curve.area["top1"] == pytest.approx(0.3 * (first + second) / 2 + 0.7 * (second + last) / 2)


def test_several_seeds_are_averaged() -> None:
    runs, curves = [], []
    for seed in range(3):
        old, new, labels = models(n=150, seed=0)
        new = new + np.random.default_rng(seed).normal(size=new.shape).astype(np.float32)
        pairs = {"old/old": (old, old), "new/old": (new, old), "new/new": (new, new)}
        runs.append({
            cell: retrieval_metrics(q, g, labels, labels, exclude_self=True) for cell, (q, g) in pairs.items()
        })  # fmt: skip
        curves.append(backfilling_curve(new, old, new, labels, labels, exclude_self=True))
    upgrade = assess(runs, curves, labels)
    assert upgrade.seeds == 3
    expected = np.mean([run["new/old"].mean_ap for run in runs])
    assert upgrade.scores["new/old"]["mean_ap"].mean == pytest.approx(expected)
    assert upgrade.curve is not None
    assert upgrade.curve.area["top1"] == pytest.approx(np.mean([curve.area["top1"] for curve in curves]))


def test_lines_by_class__equal_a_loop_and_take_many_classes() -> None:
    random = np.random.default_rng(0)
    cells = ("old/old", "new/old")
    for queries, classes in ((60, 9), (30_000, 15_000)):
        labels = random.integers(0, classes, queries) * 3
        table = {(cell, score): random.random((2, queries)) for cell in cells for score in DECISIVE}
        before = time.process_time()
        lines = _classes(table, cells, labels, None)
        assert time.process_time() - before < 3  # a pass over all queries for each class took 20 s
        assert len(lines) == len(np.unique(labels))
        assert [line.change() for line in lines] == sorted(line.change() for line in lines)
        for line in lines[:9]:
            own = labels == line.label
            assert (line.name, line.queries) == (str(line.label), own.sum())
            for (cell, score), values in table.items():
                assert line.scores[score][cell] == pytest.approx(values[:, own].mean())


def test_what_does_not_belong_together_is_refused() -> None:
    old, new, labels = models(n=50)
    with pytest.raises(DataError, match="expected old and new vectors of the same items, found 40 old, 50 new"):
        backfilling_curve(new, old[:40], new, labels, labels)
    with pytest.raises(DataError, match="query has 8 values, the new gallery 12"):
        backfilling_curve(old, old, new, labels, labels)
    cells = {
        "old/old": retrieval_metrics(old, old, labels, labels),
        "new/old": retrieval_metrics(old, old, labels, labels),
    }
    with pytest.raises(DataError, match="the same cells and the same queries"):
        assess([cells, {"old/old": cells["old/old"]}])


def test_a_label_without_a_name_is_refused() -> None:
    old, new, labels = models()
    for shift, wrong in ((0, 9), (-1, -1)):
        with pytest.raises(DataError, match=rf"class_names: 9 names, but there is a label {wrong}"):
            compare(old, new, labels + shift, exclude_self=True, class_names=[*"abcdefghi"])
