"""An upgrade, judged: what it gains and costs, how sure that is, and whether to ship it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.errors import DataError
from nobackfill.evaluation.backfilling import Curve, backfilling_curve
from nobackfill.evaluation.bootstrap import REPLICATES, Difference, Doubles, Interval, paired_bootstrap
from nobackfill.evaluation.relevance import Relevant
from nobackfill.evaluation.retrieval import RetrievalMetrics, retrieval_metrics
from nobackfill.evaluation.upgrade import update_gain
from nobackfill.evaluation.verdict import JUDGED, Verdict, verdict

SCORES = ("top1", "top5", "mean_ap")
Vectors = ArrayLike | tuple[ArrayLike, ArrayLike | None]
"""Embeddings by one model: one array if the queries are the gallery's items, else (query, gallery)."""


@dataclass(frozen=True)
class Flips:
    """Shares of queries whose first answer changed from right to wrong (negative) and from wrong to right."""

    negative: Interval
    positive: Interval


@dataclass(frozen=True)
class ClassChange:
    """Mean top-1 and average precision of one class's queries in each cell."""

    label: int
    name: str
    queries: int
    top1: dict[str, float]
    mean_ap: dict[str, float]


@dataclass(frozen=True)
class Upgrade:
    """One upgrade against the status quo. Scores are `top1`, `top5`, `mean_ap` in 0–1; intervals are 95 %.

    Attributes:
        queries: counted in every figure.
        without_match: left out, because nothing in the gallery matches them.
        seeds: training runs the figures are means over.
        scores: cell → score → figure.
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
    curve: Curve | None
    verdict: Verdict


def compare(
    old: Vectors,
    new: Vectors,
    query_labels: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    *,
    relevant: Relevant | None = None,
    independent: Vectors | None = None,
    exclude_self: bool = False,
    class_names: Sequence[str] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    device: str = "cpu",
) -> Upgrade:
    """Judge an upgrade from the embeddings of one query set and one gallery by both models.

    Args:
        old: by the old model, floats [n, d_o] or (queries, gallery).
        new: by the new model; (queries, None) where the gallery has not been embedded anew.
        query_labels: integers [n_q].
        gallery_labels: integers [n_g]; may be left out where queries and gallery are the same items.
        relevant: instead of labels, see `retrieval_metrics`.
        independent: by a new model trained with no thought for the old one: the upper bound of new/new.
        exclude_self: query i is gallery item i, which never finds itself.
        class_names: names by label.
        replicates: of the bootstrap.
        seed: of all random draws.
        device: where to search.

    Raises:
        DataError: for anything `retrieval_metrics` refuses.
    """
    if gallery_labels is None and query_labels is not None and exclude_self:
        gallery_labels = query_labels
    (old_query, old_gallery), (new_query, new_gallery) = _pair(old), _pair(new)

    def searched(query: ArrayLike, gallery: ArrayLike | None) -> RetrievalMetrics:
        if gallery is None:
            raise DataError("compare: only the new model's gallery may be missing")
        return retrieval_metrics(
            query, gallery, query_labels, gallery_labels, relevant=relevant, exclude_self=exclude_self, device=device
        )

    cells: dict[str, RetrievalMetrics] = {
        "old/old": searched(old_query, old_gallery),
        "new/old": searched(new_query, old_gallery),
    }
    curve = None
    if new_gallery is not None and old_gallery is not None:
        cells["new/new"] = searched(new_query, new_gallery)
        curve = backfilling_curve(
            new_query, old_gallery, new_gallery, query_labels, gallery_labels, relevant=relevant,
            exclude_self=exclude_self, seed=seed, device=device,
        )  # fmt: skip
    if independent is not None:
        cells["independent"] = searched(*_pair(independent))
    return judge([cells], [curve] if curve else [], query_labels, class_names, replicates=replicates, seed=seed)


def judge(
    runs: Sequence[Mapping[str, RetrievalMetrics]],
    curves: Sequence[Curve] = (),
    labels: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Upgrade:
    """Judge an upgrade from its searches: for each training run (seed) the metrics of its cells, over the same queries.

    Args:
        runs: per seed, metrics of the cells `old/old` and `new/old`, and if known `new/new` and `independent`.
        curves: per seed, the backfilling curve.
        labels: integers [n_q], for the lines by class.
        class_names: names by label.
        replicates: of the bootstrap.
        seed: of its draws.
    """
    names = list(runs[0])
    counted = runs[0]["old/old"].first_match > 0
    for cells in runs:
        if list(cells) != names or any(not np.array_equal(m.first_match > 0, counted) for m in cells.values()):
            raise DataError("compare: expected the same cells and the same queries in every run")
    table = {  # [seeds, queries]
        (cell, score): np.stack([cells[cell].per_query(score)[counted] for cells in runs])
        for cell in names
        for score in SCORES
    }
    newer: list[str] = [cell for cell in ("new/old", "new/new") if cell in names]
    right = {cell: table[cell, "top1"] for cell in ("old/old", *newer)}
    flips: dict[tuple[str, str], NDArray[np.bool_]] = {
        (cell, kind): (right["old/old"] > right[cell]) if kind == "negative" else (right["old/old"] < right[cell])
        for cell in newer
        for kind in ("negative", "positive")
    }
    columns: dict[tuple[str, str], NDArray[Any]] = {**table, **flips}
    order = {key: position for position, key in enumerate(columns)}
    means, drawn = paired_bootstrap(
        np.stack([np.asarray(values, np.float64) for values in columns.values()]), replicates=replicates, seed=seed
    )

    def figure(key: tuple[str, str]) -> Interval:
        return Interval.of(means[order[key]], drawn[:, order[key]])

    def difference(score: str, cell: str, against: str) -> Difference:
        own, base = order[cell, score], order[against, score]
        return Difference.of(means[own] - means[base], drawn[:, own] - drawn[:, base])

    def gain(score: str) -> Interval | None:
        if "independent" not in names or difference(score, "independent", "old/old").word != "better":
            return None
        parts = [order[cell, score] for cell in ("new/old", "old/old", "independent")]
        ratios = np.array([update_gain(*line) for line in drawn[:, parts]])
        return Interval.of(update_gain(*means[parts]), ratios[np.isfinite(ratios)])

    change = {cell: {score: difference(score, cell, "old/old") for score in SCORES} for cell in newer}

    def loss(score: str) -> Interval | None:
        if not {"independent", "new/new"} <= set(names):
            return None
        lead = difference(score, "independent", "new/new")
        return Interval(lead.mean, lead.low, lead.high)  # more of it is not better: it has no word

    return Upgrade(
        queries=int(counted.sum()),
        without_match=int((~counted).sum()),
        seeds=len(runs),
        scores={cell: {score: figure((cell, score)) for score in SCORES} for cell in names},
        change=change,
        gain={score: gain(score) for score in SCORES},
        loss={score: loss(score) for score in SCORES},
        flips={cell: Flips(figure((cell, "negative")), figure((cell, "positive"))) for cell in newer},
        classes=_classes(table, ("old/old", *newer), np.asarray(labels)[counted], class_names)
        if labels is not None
        else (),
        curve=_mean_curve(curves),
        verdict=verdict(change),
    )


def _classes(
    table: Mapping[tuple[str, str], Doubles],
    cells: Sequence[str],
    labels: NDArray[np.int64],
    names: Sequence[str] | None,
) -> tuple[ClassChange, ...]:
    lines = []
    for label in np.unique(labels):
        own = labels == label
        top1, mean_ap = ({cell: float(table[cell, score][:, own].mean()) for cell in cells} for score in JUDGED)
        lines.append(ClassChange(int(label), names[label] if names else str(label), int(own.sum()), top1, mean_ap))
    return tuple(sorted(lines, key=lambda line: line.mean_ap["new/old"] - line.mean_ap["old/old"]))


def _mean_curve(curves: Sequence[Curve]) -> Curve | None:
    if not curves:
        return None
    first = curves[0]
    return Curve(
        shares=first.shares,
        scores={
            score: tuple(
                float(np.mean(values)) for values in zip(*(curve.scores[score] for curve in curves), strict=True)
            )
            for score in first.scores
        },
        area={score: float(np.mean([curve.area[score] for curve in curves])) for score in first.area},
        queries=first.queries,
    )


def _pair(vectors: Vectors) -> tuple[ArrayLike, ArrayLike | None]:
    return vectors if isinstance(vectors, tuple) else (vectors, vectors)
