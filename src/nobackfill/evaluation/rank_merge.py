"""Two searches of the same gallery merged by ranks: what asking both models gives without any map between them.

An item's score is the sum of 1 / (60 + rank) over the searches (reciprocal rank fusion, Cormack et al. 2009), over
whole rankings and not the first hundred. Ranks need no scale, so scores of different models can be merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.arrays import Floats
from nobackfill.evaluation.compare import Protocol
from nobackfill.evaluation.distances import comparable
from nobackfill.evaluation.retrieval import RetrievalMetrics, matches, summarise
from nobackfill.evaluation.scores import CUTOFFS, NEEDED
from nobackfill.evaluation.search import empty_ranks, repeated

OFFSET = 60
BLOCK = 128  # queries at a time
Search = tuple[ArrayLike, ArrayLike]
"""Queries [n_q, d] and gallery [n_g, d'] of one model."""


def merged_search(searches: Sequence[Search], protocol: Protocol) -> RetrievalMetrics:
    """Metrics of the merged ranking; raises `DataError` as `retrieval_metrics` does."""
    from nobackfill.evaluation.counting import rank_matches  # its compiler takes a while to import

    n_q, n_g = (len(np.asarray(each)) for each in searches[0])
    relevance = matches(protocol.query_labels, protocol.gallery_labels, protocol.relevant, n_q, n_g)
    cutoffs = CUTOFFS + tuple(k for k in NEEDED if k not in CUTOFFS)
    ranks, places = empty_ranks(n_q, cutoffs), np.asarray(cutoffs, np.int64)
    own = np.arange(n_q) if protocol.exclude_self else np.full(n_q, -1)
    for rows, scores in _blocks(searches, exclude_self=protocol.exclude_self):
        rank_matches(
            scores, n_g, relevance.starts[rows], relevance.stops[rows], relevance.items, own[rows], places,
            ranks.matches[rows], ranks.first[rows], ranks.precision[rows], ranks.precision_at_r[rows],
            ranks.hits[rows], ranks.gain[rows],
        )  # fmt: skip
    return summarise(ranks, CUTOFFS)


def merged_nearest(searches: Sequence[Search], k: int, *, exclude_self: bool) -> NDArray[np.int64]:
    """The first k items of the merged ranking, best first, int64 [n_q, k]; −1 where there are fewer."""
    found = []
    for rows, scores in _blocks(searches, exclude_self=exclude_self):
        best = np.argsort(-scores, axis=1, kind="stable")[:, : k + exclude_self]
        if exclude_self:
            best = np.stack(
                [line[line != row][:k] for line, row in zip(best, range(rows.start, rows.stop), strict=True)]
            )
        found.append(np.pad(best, ((0, 0), (0, k - best.shape[1])), constant_values=-1))
    return np.concatenate(found)


def _blocks(searches: Sequence[Search], *, exclude_self: bool) -> Iterator[tuple[slice, Floats]]:
    """Rows of queries and their merged scores [b, n_g]; an item that is the query itself takes no rank from others."""
    prepared = [comparable(*each) for each in searches]
    count = len(prepared[0][0])
    twins = [repeated(gallery) for _, gallery in prepared]
    for start in range(0, count, BLOCK):
        rows = slice(start, min(count, start + BLOCK))
        total = np.zeros((rows.stop - start, len(prepared[0][1])))
        for (query, gallery), (copies, originals) in zip(prepared, twins, strict=True):
            scores = query[rows] @ gallery.T
            scores[:, copies] = scores[:, originals]  # which a product may tell apart by its rounding
            if exclude_self:
                scores[np.arange(len(scores)), np.arange(rows.start, rows.stop)] = -np.inf
            total += 1 / (OFFSET + _ranks(scores))
        yield rows, total.astype(np.float32)


def _ranks(scores: Floats) -> NDArray[np.int64]:
    """Of each item in its row, from 1, int64 [b, n_g]; items of one score have one rank, that of the first of them."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    place = np.arange(scores.shape[1])
    first = np.where(np.diff(ordered, axis=1, prepend=np.inf) != 0, place, 0)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.maximum.accumulate(first, axis=1) + 1, axis=1)
    return ranks
