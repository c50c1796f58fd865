"""CMC, mean average precision and their like, of one set of vectors searched with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.errors import DataError, nearest
from nobackfill.evaluation.distances import Distance, comparable
from nobackfill.evaluation.relevance import Relevance, Relevant, by_items, by_label
from nobackfill.evaluation.scores import CUTOFFS, NEEDED, SCORES, TABLE
from nobackfill.evaluation.search import Ranks, search


@dataclass(frozen=True)
class RetrievalMetrics:
    """Metrics of one query set against one gallery, in 0–1, over the queries that have a match in the gallery.

    A match that ties with non-matches counts as below them, save in `mean_ap`, which takes tied items as one group, as
    scikit-learn does.

    Attributes:
        cmc: k → fraction of queries with a match among the first k.
        recall: k → mean fraction of a query's matches among the first k.
        ndcg: k → normalised discounted cumulative gain of the first k, every match of gain 1.
        mean_ap: mean average precision over the whole ranking.
        mean_ap_at_r: mAP@R: average precision cut at R, the query's number of matches, divided by R.
        queries: number of queries counted.
        without_match: number of queries left out because nothing in the gallery matches them.
        ranks: where the matches of each query stand, for all queries.
    """

    cmc: dict[int, float]
    recall: dict[int, float]
    ndcg: dict[int, float]
    mean_ap: float
    mean_ap_at_r: float
    queries: int
    without_match: int
    ranks: Ranks

    @property
    def first_match(self) -> NDArray[np.int64]:
        """int64 [all queries], rank (from 1) of the best match; 0 if left out."""
        return self.ranks.first

    @property
    def average_precision(self) -> NDArray[np.float64]:
        """float64 [all queries]; NaN if left out."""
        return self.ranks.precision

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Bool [all queries], those that have a match."""
        return self.ranks.first > 0

    def scores(self, more: Sequence[str] = ()) -> dict[str, float]:
        """The scores of every report, by the keys of `nobackfill.evaluation.scores.SCORES`, and of `more`."""
        return {key: float(self.per_query(key)[self.counted].mean()) for key in (*SCORES, *more)}

    def per_query(self, score: str) -> NDArray[np.float64]:
        """One of the scores for each query, float64 [all queries]; NaN if left out. `DataError` for another name."""
        known = {row.key: row for row in TABLE}
        if score not in known:
            raise DataError(f"score {score!r}: no such score; {nearest(score, known)}")
        return known[score].per_query(self.ranks)


def retrieval_metrics(
    query: ArrayLike,
    gallery: ArrayLike,
    query_labels: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    *,
    relevant: Relevant | None = None,
    exclude_self: bool = False,
    topk: Sequence[int] = CUTOFFS,
    distance: Distance = "cosine",
    device: str = "cpu",
) -> RetrievalMetrics:
    """Exact metrics of a ranking by the first min(d_q, d_g) values.

    Args:
        query: floats [n_q, d_q] of any width (also float16, also memory-mapped); compared in float32.
        gallery: floats [n_g, d_g].
        query_labels: integers [n_q]; a gallery item matches a query of the same label.
        gallery_labels: integers [n_g].
        relevant: instead of labels, bool [n_q, n_g], or for each query a list of the gallery items that match it.
        exclude_self: query i is gallery item i, which is left out of its own ranking.
        topk: cut-offs k of CMC, recall and nDCG.
        distance: `cosine`, or `l2`: the Euclidean distance of the values as they are.
        device: where to compute, `cpu` or a device of torch.

    Raises:
        DataError: for empty, misshapen or non-finite input, vectors of norm zero (cosine), or no query with a match.
    """
    queries, items = comparable(query, gallery, distance)
    relevance = matches(query_labels, gallery_labels, relevant, len(queries), len(items))
    cutoffs = check_cutoffs(topk)
    check_selves(exclude_self, len(queries), len(items))
    own = np.arange(len(queries)) if exclude_self else None
    counted_at = cutoffs + tuple(k for k in NEEDED if k not in cutoffs)
    ranks = search(queries, items, relevance, counted_at, own=own, device=device)
    return summarise(ranks, cutoffs)


def summarise(ranks: Ranks, cutoffs: tuple[int, ...]) -> RetrievalMetrics:
    """Means over the queries that have a match; raises `DataError` if none has. `cutoffs`: the first of the ranks'."""
    counted = ranks.first > 0
    if not counted.any():
        raise DataError(
            "no query has a match in the gallery: expected a common label, or a relevant item, for at least one of them"
        )
    number, first = ranks.matches[counted], ranks.first[counted]
    recall = ranks.hits[counted, : len(cutoffs)] / number[:, None]
    # The best ranking has its matches first: its gain is the sum of the first min(R, k) discounts.
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(2 + np.arange(max(cutoffs))))])
    best = np.stack([ideal[np.minimum(number, k)] for k in cutoffs], axis=1)
    ndcg = ranks.gain[counted, : len(cutoffs)] / best
    return RetrievalMetrics(
        cmc={k: float((first <= k).mean()) for k in cutoffs},
        recall={k: float(recall[:, c].mean()) for c, k in enumerate(cutoffs)},
        ndcg={k: float(ndcg[:, c].mean()) for c, k in enumerate(cutoffs)},
        mean_ap=float(ranks.precision[counted].mean()),
        mean_ap_at_r=float(ranks.precision_at_r[counted].mean()),
        queries=int(counted.sum()),
        without_match=int((~counted).sum()),
        ranks=ranks,
    )


def matches(
    query_labels: ArrayLike | None, gallery_labels: ArrayLike | None, relevant: Relevant | None, n_q: int, n_g: int
) -> Relevance:
    """The matches by labels or by `relevant`, whichever is given; raises `DataError` unless it is one of them."""
    if relevant is None:
        if query_labels is None or gallery_labels is None:
            given = [name for name, each in (("query", query_labels), ("gallery", gallery_labels)) if each is not None]
            found = f"those of the {given[0]} only" if given else "neither"
            raise DataError(f"expected labels of query and gallery, or `relevant`; found {found}")
        return by_label(query_labels, gallery_labels, n_q, n_g)
    if query_labels is not None or gallery_labels is not None:
        raise DataError("expected labels of query and gallery, or `relevant`; found both")
    return by_items(relevant, n_q, n_g)


def check_cutoffs(topk: Sequence[int]) -> tuple[int, ...]:
    """Cut-offs of at least 1, at least one of them; else `DataError`."""
    given = np.atleast_1d(np.asarray(topk))
    if given.ndim != 1 or given.dtype.kind not in "iu" or not given.size or given.min() < 1:
        raise DataError(f"topk: expected a list of whole numbers of at least 1, found {topk!r}")
    return tuple(int(k) for k in given)


def check_selves(exclude_self: bool, n_q: int, n_g: int) -> None:
    """Only where query and gallery are the same items can one find itself; else `DataError`."""
    if exclude_self and n_q != n_g:
        raise DataError(f"exclude_self: expected query and gallery to be the same items, found {n_q} and {n_g}")
