"""The scores of a search. To add one: a row in the table below; every report and comparison takes its scores from here.

A score is a number in 0–1 for each query, of which more is better; a search's score is the mean over its queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nobackfill.evaluation.search import Ranks

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        key: its name in code and files.
        title: its name in tables.
        per_query: ranks of a search → float64 [n_q], NaN for a query without a match.
        decides: whether a verdict looks at it.
        upgrade: whether it stands in the tables of upgrades.
        fit: whether it stands in the tables of fitted maps.
        cutoff: k, if `per_query` reads hits or gain at a cut-off (`Ranks.hits`); not needed for the first match.
    """

    key: str
    title: str
    per_query: Callable[[Ranks], Doubles]
    decides: bool = False
    upgrade: bool = True
    fit: bool = True
    cutoff: int | None = None


def _match_within(k: int) -> Callable[[Ranks], Doubles]:
    def per_query(ranks: Ranks) -> Doubles:
        return np.where(ranks.first > 0, (ranks.first <= k).astype(np.float64), np.nan)

    return per_query


def _recall_within(k: int) -> Callable[[Ranks], Doubles]:
    def per_query(ranks: Ranks) -> Doubles:
        found = ranks.hits[:, ranks.cutoffs.index(k)] / np.maximum(ranks.matches, 1)
        return np.where(ranks.first > 0, found, np.nan)

    return per_query


def _reciprocal_rank(ranks: Ranks) -> Doubles:
    return np.where(ranks.first > 0, 1 / np.maximum(ranks.first, 1), np.nan)


def _average_precision(ranks: Ranks) -> Doubles:
    return ranks.precision


MAIN = "top1"  # whether the first answer is right; what gains, losses, flips and matrices are about
TABLE: tuple[Score, ...] = (
    Score(MAIN, "top-1", _match_within(1), decides=True),
    Score("top5", "top-5", _match_within(5), fit=False),
    Score("top10", "top-10", _match_within(10), upgrade=False),
    Score("recall10", "recall@10", _recall_within(10), upgrade=False, fit=False, cutoff=10),
    Score("mrr", "MRR", _reciprocal_rank, upgrade=False, fit=False),
    Score("mean_ap", "mAP", _average_precision, decides=True),
)

SCORES = {score.key: score for score in TABLE if score.upgrade}
PAIR_SCORES = ("recall10", "mrr")
"""What searches of queries among documents are told by as well."""
FIT_SCORES = {score.key: score for score in TABLE if score.fit}
DECISIVE = tuple(score.key for score in TABLE if score.decides)
RANKING = DECISIVE[-1]  # of the whole ranking: what classes are sorted by, and what maps are chosen by
NEEDED = tuple(sorted({score.cutoff for score in TABLE if score.cutoff}))
"""Where every search counts hits."""
CUTOFFS = tuple(sorted({1, 5, *(row.cutoff for row in TABLE if row.cutoff and (row.upgrade or row.fit))}))
"""Where searches report CMC, recall and nDCG unless told otherwise."""


AGREEMENT = "overlap"
"""Not of ranks: the fraction of a full backfill's nearest items that are found, where nobody knows what is relevant."""
DEEP_AGREEMENT = "deep_overlap"
"""The same at several depths, mean over them."""
_TITLES = {
    **{score.key: score.title for score in TABLE},
    AGREEMENT: "agreement with a full backfill",
    DEEP_AGREEMENT: "agreement with a full backfill, nearest 10 and 30",
}


def title(key: str) -> str:
    """A score's title; a key of another version is its own."""
    return _TITLES.get(key, key)
