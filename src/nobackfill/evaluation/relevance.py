"""Which gallery items a query is looking for: by label, by a boolean table, or by lists of item numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.errors import DataError

Relevant = NDArray[np.bool_] | Sequence[ArrayLike]
"""bool [n_q, n_g], or for each query the numbers of its gallery items."""


@dataclass(frozen=True)
class Relevance:
    """The matches of query i are `items[starts[i]:stops[i]]`; queries may share them.

    Attributes:
        starts, stops: int64 [n_q].
        items: int64, numbers of gallery items.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    items: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def any(self, *, exclude_self: bool = False) -> NDArray[np.bool_]:
        """Bool [n_q], the queries that have a match; `exclude_self`: other than item i for query i."""
        matches: NDArray[np.int64] = self.stops - self.starts
        if not exclude_self or not len(self.items):
            return matches > 0
        only = self.items[np.minimum(self.starts, len(self.items) - 1)]
        others: NDArray[np.bool_] = (matches > 1) | ((matches == 1) & (only != np.arange(len(self))))
        return others


def by_label(query_labels: ArrayLike, gallery_labels: ArrayLike, n_q: int, n_g: int) -> Relevance:
    """A gallery item matches a query of the same label; integers [n_q] and [n_g]. Raises `DataError`."""
    query, gallery = _labels(query_labels, n_q, "query"), _labels(gallery_labels, n_g, "gallery")
    items = np.argsort(gallery, kind="stable")
    ordered = gallery[items]
    return Relevance(np.searchsorted(ordered, query, "left"), np.searchsorted(ordered, query, "right"), items)


def by_items(relevant: Relevant, n_q: int, n_g: int) -> Relevance:
    """Several matches of any kind a query, from a boolean table or from lists. Raises `DataError`."""
    if isinstance(relevant, np.ndarray) and relevant.ndim == 2:
        if relevant.dtype != np.bool_ or relevant.shape != (n_q, n_g):
            raise DataError(f"relevant: expected bool [{n_q}, {n_g}], found {relevant.dtype} {list(relevant.shape)}")
        lists = [np.flatnonzero(row) for row in relevant]
    else:
        if len(relevant) != n_q:
            raise DataError(f"relevant: expected a list for each of the {n_q} queries, found {len(relevant)} lists")
        lists = [_numbers(each, query, n_g) for query, each in enumerate(relevant)]
    bounds = np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64)
    return Relevance(bounds[:-1], bounds[1:], np.concatenate([np.empty(0, np.int64), *lists]).astype(np.int64))


def _numbers(numbers: ArrayLike, query: int, n_g: int) -> NDArray[np.int64]:
    try:
        array = np.asarray(numbers)
    except ValueError:
        raise DataError(f"relevant: query {query}: expected item numbers, found lists of unequal lengths") from None
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"relevant: query {query}: expected item numbers, found {array.dtype} {list(array.shape)}")
    unique = np.unique(array).astype(np.int64)  # an item named twice is one match
    if unique[0] < 0 or unique[-1] >= n_g:
        wrong = unique[0] if unique[0] < 0 else unique[-1]
        raise DataError(f"relevant: query {query}: item {wrong} is outside the gallery's range 0…{n_g - 1}")
    return unique


def _labels(labels: ArrayLike, count: int, name: str) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise DataError(f"{name} labels: expected integers [{count}], found {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)
