"""Who the nearest neighbours are, and how far two ways of searching agree on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.evaluation.distances import comparable
from nobackfill.evaluation.retrieval import check_selves

Integers = NDArray[np.int64]
SURE = 3.0  # standard deviations from chance; unrelated pairs come that far once in a thousand times


def neighbours(query: ArrayLike, gallery: ArrayLike, k: int, *, exclude_self: bool = False) -> Integers:
    """The k nearest items by cosine on the first min(d_q, d_g) values, best first.

    Args:
        query: floats [n_q, d_q].
        gallery: floats [n_g, d_g]; with fewer than k items the last places hold −1.
        k: how many.
        exclude_self: query i is gallery item i, which is left out.

    Returns:
        int64 [n_q, k], item numbers.
    """
    import faiss

    queries, items = comparable(query, gallery)
    check_selves(exclude_self, len(queries), len(items))
    _, nearest = faiss.knn(queries, items, min(k + exclude_self, len(items)), faiss.METRIC_INNER_PRODUCT)
    rows = nearest.astype(np.int64)
    if exclude_self:
        # To the end with the query itself; where a duplicate took its place, the last one goes.
        own = rows == np.arange(len(rows))[:, None]
        own[~own.any(axis=1), -1] = True
        rows = rows[~own].reshape(len(rows), -1)
    short = k - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, max(0, short))), constant_values=-1)[:, :k]


def overlap(answers: Integers, wanted: Integers) -> NDArray[np.float64]:
    """Fraction of `wanted` [n, k] that is in `answers` [n, k], for each row, float64 [n]; −1 is nothing."""
    common = [len(np.intersect1d(one, other[other >= 0])) for one, other in zip(answers, wanted, strict=True)]
    fractions: NDArray[np.float64] = np.asarray(common, np.float64) / np.maximum((wanted >= 0).sum(axis=1), 1)
    return fractions


def own_ranks(vectors: ArrayLike, counterparts: ArrayLike) -> Integers:
    """For each row the rank, from 1, of its own counterpart among all of them; a tie counts against it; int64 [n]."""
    one, other = comparable(vectors, counterparts)
    ranks = np.empty(len(one), np.int64)
    for start in range(0, len(one), 1024):
        scores = one[start : start + 1024] @ other.T
        own = scores[np.arange(len(scores)), np.arange(start, start + len(scores))]
        ranks[start : start + 1024] = (scores >= own[:, None]).sum(axis=1)
    return ranks


def unrelated(vectors: ArrayLike, counterparts: ArrayLike, side: str = "old") -> str | None:
    """Why rows and counterparts are no pairs, if they are not: their own is found no better than by chance.

    Args:
        vectors: floats [n, d].
        counterparts: floats [n, m], compared on the first min(d, m) values.
        side: the model that they are by, in words.

    Returns:
        `ranks an item's own old vector at …`, or None where they are pairs.
    """
    ranks = own_ranks(vectors, counterparts)
    count = len(ranks)
    # Of unrelated rows the ranks are uniform on 1 … n.
    expected, deviation = (count + 1) / 2, np.sqrt((count**2 - 1) / 12 / count)
    if expected - ranks.mean() > SURE * deviation:
        return None
    return (
        f"ranks an item's own {side} vector at {ranks.mean():.0f} of {count} on average, where chance gives "
        f"{expected:.0f}"
    )
