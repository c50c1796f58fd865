"""The comparison of an upgrade: what it gains and costs, how sure that is, and whether to ship it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.errors import DataError
from nobackfill.evaluation.backfilling import BackfillingCurve, mean_curve
from nobackfill.evaluation.bootstrap import REPLICATES, Difference, Doubles, Interval
from nobackfill.evaluation.comparison import Comparison
from nobackfill.evaluation.retrieval import RetrievalMetrics
from nobackfill.evaluation.scores import DECISIVE, MAIN, RANKING, SCORES
from nobackfill.evaluation.upgrade import update_gain
from nobackfill.evaluation.verdict import Verdict, upgrade_verdict

BOUND = "independent"  # the cell of an independent new model, the upper bound of new/new
Cell = tuple[str, str]  # of a comparison: cell, score


@dataclass(frozen=True)
class Flips:
    """Fractions of queries whose first answer changed from right to wrong (negative) and from wrong to right."""

    negative: Interval
    positive: Interval


@dataclass(frozen=True)
class ClassChange:
    """One class's queries.

    Attributes:
        label: its number.
        name: its name.
        queries: how many there are.
        scores: score that decides → cell → mean.
    """

    label: int
    name: str
    queries: int
    scores: dict[str, dict[str, float]]

    def change(self) -> float:
        """What the new queries change in the old gallery's whole ranking; below zero where they lose."""
        return self.scores[RANKING]["new/old"] - self.scores[RANKING]["old/old"]


@dataclass(frozen=True)
class Upgrade:
    """One upgrade against the status quo. Scores are those of `scores.SCORES`, in 0–1; intervals are 95 %.

    Attributes:
        queries: counted in every mean.
        without_match: left out, because nothing in the gallery matches them.
        seeds: training runs the means are over.
        scores: cell → score → mean.
        change: cell → score → difference to the status quo (old/old).
        gain: score → update gain of new/old; None where the independent model does not clearly beat the status quo.
        loss: score → self-accuracy loss: independent minus new/new; None without an independent model.
        flips: cell → first answers that changed against the status quo.
        classes: a line a class, the one whose average precision in the old gallery fell most first.
        curve: the backfilling curve; None where the new model's gallery is not given.
        verdict: whether to ship.
    """

    queries: int
    without_match: int
    seeds: int
    scores: dict[str, dict[str, Interval]]
    change: dict[str, dict[str, Difference]]
    gain: dict[str, Interval | None]
    loss: dict[str, Interval | None]
    flips: dict[str, Flips]
    classes: tuple[ClassChange, ...]
    curve: BackfillingCurve | None
    verdict: Verdict


def upgrade_cells(
    searches: Mapping[tuple[str, str], RetrievalMetrics], old: str, new: str, bound: RetrievalMetrics | None = None
) -> dict[str, RetrievalMetrics]:
    """The cells that `assess` takes, from searches by (query, gallery) generation and the upper bound's search."""
    cells = {"old/old": searches[old, old], "new/old": searches[new, old]}
    if (new, new) in searches:
        cells["new/new"] = searches[new, new]
    return cells if bound is None else {**cells, BOUND: bound}


def assess(
    runs: Sequence[Mapping[str, RetrievalMetrics]],
    curves: Sequence[BackfillingCurve] = (),
    labels: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Upgrade:
    """Assess an upgrade from its searches: for each training run (seed) the metrics of its cells, same queries in all.

    Args:
        runs: per seed, metrics of the cells `old/old` and `new/old`, and if known `new/new` and `independent`.
        curves: per seed, the backfilling curve.
        labels: integers [n_q], for the lines by class.
        class_names: names by label.
        replicates: of the bootstrap.
        seed: of its draws.

    Raises:
        DataError: where runs differ in their cells or in the queries that count.
    """
    names = list(runs[0])
    counted = runs[0]["old/old"].counted
    for cells in runs:
        if list(cells) != names or any(not np.array_equal(m.counted, counted) for m in cells.values()):
            raise DataError("compare: expected the same cells and the same queries in every run")
    table: dict[Cell, Doubles] = {  # [seeds, queries]
        (cell, score): np.stack([cells[cell].per_query(score)[counted] for cells in runs])
        for cell in names
        for score in SCORES
    }
    newer: list[str] = [cell for cell in ("new/old", "new/new") if cell in names]
    means = Comparison({**table, **_flips(table, newer)}, replicates=replicates, seed=seed)
    change = {cell: {score: means.difference((cell, score), ("old/old", score)) for score in SCORES} for cell in newer}
    return Upgrade(
        queries=int(counted.sum()),
        without_match=int((~counted).sum()),
        seeds=len(runs),
        scores={cell: {score: means.interval((cell, score)) for score in SCORES} for cell in names},
        change=change,
        gain={score: _gain(means, names, score) for score in SCORES},
        loss={score: _loss(means, names, score) for score in SCORES},
        flips={cell: Flips(means.interval((cell, "negative")), means.interval((cell, "positive"))) for cell in newer},
        classes=_classes(table, ("old/old", *newer), np.asarray(labels)[counted], class_names)
        if labels is not None
        else (),
        curve=mean_curve(curves),
        verdict=upgrade_verdict(change),
    )


def _flips(table: Mapping[Cell, Doubles], newer: Sequence[str]) -> dict[Cell, Doubles]:
    """Queries whose first answer was right and is wrong, and the other way round: 0 or 1."""
    was = table["old/old", MAIN]
    flips = {}
    for cell in newer:
        flips[cell, "negative"] = (was > table[cell, MAIN]).astype(np.float64)
        flips[cell, "positive"] = (was < table[cell, MAIN]).astype(np.float64)
    return flips


def _gain(means: Comparison[Cell], names: Sequence[str], score: str) -> Interval | None:
    if BOUND not in names or means.difference((BOUND, score), ("old/old", score)).decision != "better":
        return None
    parts = [(cell, score) for cell in ("new/old", "old/old", BOUND)]
    ratios = np.array([update_gain(*line) for line in means.replicates(parts)])
    return Interval.of(update_gain(*(means.mean(part) for part in parts)), ratios[np.isfinite(ratios)])


def _loss(means: Comparison[Cell], names: Sequence[str], score: str) -> Interval | None:
    if not {BOUND, "new/new"} <= set(names):
        return None
    lead = means.difference((BOUND, score), ("new/new", score))
    return Interval(lead.mean, lead.low, lead.high)  # more of it is not better: it decides nothing


def _classes(
    table: Mapping[Cell, Doubles], cells: Sequence[str], labels: NDArray[np.int64], names: Sequence[str] | None
) -> tuple[ClassChange, ...]:
    found, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if names and (found[0] < 0 or found[-1] >= len(names)):
        wrong = found[0] if found[0] < 0 else found[-1]
        raise DataError(f"class_names: {len(names)} names, but there is a label {wrong}")
    means = {
        (cell, score): np.bincount(place, weights=table[cell, score].mean(axis=0)) / counts
        for score in DECISIVE
        for cell in cells
    }
    lines = []
    for row, label in enumerate(found.tolist()):
        scores = {score: {cell: float(means[cell, score][row]) for cell in cells} for score in DECISIVE}
        lines.append(ClassChange(label, names[label] if names else str(label), int(counts[row]), scores))
    return tuple(sorted(lines, key=ClassChange.change))
