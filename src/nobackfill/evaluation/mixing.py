"""How to compare scores of old and of new items in one ranking: the rules there are, measured side by side.

New unit queries q [n, d] meet new unit items x [d] and old unit items φ [d_o] in one gallery. Every rule here is an
affine function of the two inner products whose factors may depend on the query, so each is an inner product in a wider
space: query [a·q[:d_o] ; c·q ; offsets], item [φ ; 0 ; 1 ; 0] or [0 ; x ; 0 ; 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.arrays import Floats, unit
from nobackfill.errors import require
from nobackfill.evaluation.backfilling import MAX_QUERIES, prefix_scale
from nobackfill.evaluation.relevance import Relevance
from nobackfill.evaluation.retrieval import matches, summarise
from nobackfill.evaluation.scores import CUTOFFS, DECISIVE
from nobackfill.evaluation.search import search
from nobackfill.evaluation.vectors import as_table

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
PAIRS = 200_000  # scored pairs a calibration is fitted on


@dataclass(frozen=True)
class Mixed:
    """A gallery that is part old, part new.

    Attributes:
        query: new unit queries [n, d].
        old_query: the same queries by the old model, for the one rule that needs it.
        old: unit vectors [n_g, d_o] of all items.
        new: unit vectors [n_g, d] of all items.
        exchanged: bool [n_g], items that are new.
        gamma: γ, mean norm of a new unit vector's first d_o values.
        fit_query: queries that calibration may learn from, and their relevance bool [n_f, n_g].
    """

    query: Floats
    old_query: Floats | None
    old: Floats
    new: Floats
    exchanged: NDArray[np.bool_]
    gamma: float
    fit_query: tuple[Floats, NDArray[np.bool_]]


Factors = tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]
"""Of the old part: factor and offset; of the new part: factor and offset; a number, or one a query."""


def inner(mixed: Mixed) -> Factors:  # noqa: ARG001
    """The stored vectors as they are: what galleries do."""
    return 1, 0, 1, 0


def scaled(mixed: Mixed) -> Factors:
    """Old vectors times γ, the norm that a new vector's first values have."""
    return mixed.gamma, 0, 1, 0


def cosine(mixed: Mixed) -> Factors:
    """Cosine on the first d_o values for old items, on all for new ones."""
    return 1 / np.linalg.norm(mixed.query[:, : mixed.old.shape[1]], axis=1), 0, 1, 0


def calibrated(mixed: Mixed) -> Factors:
    """Each part's score as the log-odds of a match, by logistic regression on labelled pairs."""
    old, new = fit_calibration_on(mixed.fit_query[0], mixed.old, mixed.new, mixed.fit_query[1])
    return *old, *new


def zscore(mixed: Mixed) -> Factors:
    """Each part's scores less their mean, by their deviation, query by query."""
    old_part = _standard(mixed.query[:, : mixed.old.shape[1]], mixed.old[~mixed.exchanged])
    return *old_part, *_standard(mixed.query, mixed.new[mixed.exchanged])


RULES: dict[str, Callable[[Mixed], Factors]] = {
    "inner": inner,
    "scaled": scaled,
    "cosine": cosine,
    "calibrated": calibrated,
    "zscore": zscore,
}


def fit_calibration_on(
    query: Floats, old: Floats, new: Floats, relevant: NDArray[np.bool_]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Factor and offset of scores on old and on new items, each making them the log-odds of a match.

    Fitted by logistic regression on pairs of queries [n_f, d] and items [n_g], seen old and seen new; `relevant` is
    bool [n_f, n_g]. A factor below zero (a score that says less than nothing) is set to zero.
    """
    require("sklearn", what="a calibration of scores")
    from sklearn.linear_model import LogisticRegression

    chosen = np.random.default_rng(0).permutation(relevant.size)[:PAIRS]
    target = relevant.ravel()[chosen]
    fitted = []
    for rows, items in ((query[:, : old.shape[1]], old), (query, new)):
        scores = (rows @ items.T).ravel()[chosen, None]
        model = LogisticRegression(C=1e6).fit(scores, target)
        fitted.append((max(0.0, float(model.coef_[0, 0])), float(model.intercept_[0])))
    return fitted[0], fitted[1]


def mixing_study(
    query: ArrayLike,
    old_gallery: ArrayLike,
    new_gallery: ArrayLike,
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
    *,
    old_query: ArrayLike | None = None,
    exclude_self: bool = False,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> list[dict[str, float | str]]:
    """Every rule at every fraction of the gallery that is embedded anew, in random order.

    Half of the queries are searched with (at most 5,000), the others are what calibration learns from.

    Args:
        query: new queries, floats [n_q, d].
        old_gallery: floats [n_g, d_o].
        new_gallery: floats [n_g, d], the same items.
        query_labels: integers [n_q].
        gallery_labels: integers [n_g].
        old_query: the same queries by the old model; adds the rule that keeps the old encoder alive: old queries on the
            old part, new ones on the new part, merged by `zscore`.
        exclude_self: query i is item i.
        fractions: β.
        seed: of the order and of the halves.

    Returns:
        Rows {rule, fraction, top1, mean_ap, recall_old, recall_new}: recall is the fraction of a query's matches among
        its first R answers, R being how many there are, separately for the matches still old and already new (NaN
        where there are none).
    """
    queries, old, new = (unit(as_table(each, name), name) for each, name in (
        (query, "query"), (old_gallery, "old gallery"), (new_gallery, "new gallery")
    ))  # fmt: skip
    by_old = None if old_query is None else unit(as_table(old_query, "old query"), "old query")
    random = np.random.default_rng(seed)
    halves = random.permutation(len(queries))
    used, fit = np.sort(halves[: min(MAX_QUERIES, len(halves) // 2)]), np.sort(halves[-min(1000, len(halves) // 2) :])
    order = random.permutation(len(new))
    relevance = matches(query_labels, gallery_labels, None, len(queries), len(new))
    some = Relevance(relevance.starts[used], relevance.stops[used], relevance.items)
    own = used if exclude_self else None
    relevant = query_labels[fit, None] == gallery_labels[None]
    if exclude_self:
        relevant[np.arange(len(fit)), fit] = False
    rows: list[dict[str, float | str]] = []
    for fraction in fractions:
        exchanged = np.zeros(len(new), np.bool_)
        exchanged[order[: round(fraction * len(new))]] = True
        gamma = prefix_scale(new, old.shape[1])
        mixed = Mixed(
            queries[used],
            None if by_old is None else by_old[used],
            old,
            new,
            exchanged,
            gamma,
            (queries[fit], relevant),
        )
        for name, rule in RULES.items():
            wide, items = _wide(mixed.query[:, : old.shape[1]], mixed.query, mixed, rule(mixed))
            rows.append({"rule": name, "fraction": fraction, **_scores(wide, items, some, own, exchanged)})
        if mixed.old_query is not None:
            old_part = _standard(mixed.old_query, old[~exchanged])
            factors = (*old_part, *_standard(mixed.query, new[exchanged]))
            wide, items = _wide(mixed.old_query, mixed.query, mixed, factors)
            rows.append(
                {"rule": "zscore, both encoders", "fraction": fraction, **_scores(wide, items, some, own, exchanged)}
            )
    return rows


def _standard(query: Floats, items: Floats) -> tuple[ArrayLike, ArrayLike]:
    """Factor and offset that give a query's scores on these items mean 0 and deviation 1."""
    if not len(items):
        return 1, 0
    mean = query @ items.mean(axis=0)
    second = np.einsum("nd,nd->n", query @ (items.T @ items / len(items)), query)
    deviation = np.sqrt(np.maximum(second - mean**2, 1e-12))
    return 1 / deviation, -mean / deviation


def _wide(old_query: Floats, new_query: Floats, mixed: Mixed, factors: Factors) -> tuple[Floats, Floats]:
    count = len(new_query)
    columns = [np.broadcast_to(np.asarray(factor, np.float32), count)[:, None] for factor in factors]
    query = np.concatenate([columns[0] * old_query, columns[2] * new_query, columns[1], columns[3]], axis=1)
    d_o, d = mixed.old.shape[1], mixed.new.shape[1]
    items = np.zeros((len(mixed.old), d_o + d + 2), np.float32)
    items[:, :d_o] = np.where(mixed.exchanged[:, None], 0, mixed.old)
    items[:, d_o : d_o + d] = np.where(mixed.exchanged[:, None], mixed.new, 0)
    items[:, -2], items[:, -1] = ~mixed.exchanged, mixed.exchanged
    return query.astype(np.float32), items


def _scores(
    query: Floats, items: Floats, relevance: Relevance, own: NDArray[np.int64] | None, exchanged: NDArray[np.bool_]
) -> dict[str, float]:
    scores_of_all = summarise(search(query, items, relevance, CUTOFFS, own=own), CUTOFFS).scores()
    of_old: list[float] = []
    of_new: list[float] = []
    for place in range(0, len(query), max(1, len(query) // 1000)):
        matched = relevance.items[relevance.starts[place] : relevance.stops[place]]
        if own is not None:
            matched = matched[matched != own[place]]
        if not len(matched):
            continue
        scores = items @ query[place]
        if own is not None:
            scores[own[place]] = -np.inf
        first = np.argpartition(-scores, len(matched) - 1)[: len(matched)]
        hit = np.isin(matched, first)
        for part, values in ((~exchanged[matched], of_old), (exchanged[matched], of_new)):
            if part.any():
                values.append(float(hit[part].mean()))
    recalls = {"recall_old": of_old, "recall_new": of_new}
    return {
        **{score: scores_of_all[score] for score in DECISIVE},
        **{name: float(np.mean(values)) if values else float("nan") for name, values in recalls.items()},
    }
