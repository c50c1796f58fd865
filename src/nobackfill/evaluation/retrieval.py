"""CMC and mean average precision of one set of vectors searched with another.

Cosine on the first min(d_q, d_g) values. A block of queries at a time: memory grows with the gallery, never with
queries × gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nobackfill.errors import DataError

BLOCK_VALUES = 2**23  # scores held at a time


@dataclass(frozen=True)
class RetrievalMetrics:
    """Figures of one query set against one gallery, in 0–1, over the queries that have a match in the gallery.

    Attributes:
        cmc: k → share of queries with a match among the first k.
        mean_ap: mean average precision over the whole ranking.
        queries: number of queries counted.
        without_match: number of queries left out because nothing in the gallery matches them.
        first_match: int64 [all queries], rank (from 1) of the best match, tied non-matches above it; 0 if left out.
        average_precision: float64 [all queries]; NaN if left out.
    """

    cmc: dict[int, float]
    mean_ap: float
    queries: int
    without_match: int
    first_match: NDArray[np.int64]
    average_precision: NDArray[np.float64]

    def scores(self) -> dict[str, float]:
        """CMC@1, CMC@5 and mAP under the names used in every report; needs both cut-offs in `cmc`."""
        return {"top1": self.cmc[1], "top5": self.cmc[5], "mean_ap": self.mean_ap}


def retrieval_metrics(
    query: ArrayLike,
    gallery: ArrayLike,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    *,
    exclude_self: bool = False,
    topk: Sequence[int] = (1, 5),
) -> RetrievalMetrics:
    """Exact CMC@k and mAP of a ranking by cosine.

    Items of equal score share one rank: average precision counts them as scikit-learn's does, CMC puts a match below
    the non-matches it ties with.

    Args:
        query: floats [n_q, d_q].
        gallery: floats [n_g, d_g]; only the first min(d_q, d_g) values of both are compared.
        query_labels: integers [n_q]; a gallery item matches a query of the same label.
        gallery_labels: integers [n_g].
        exclude_self: query i is gallery item i, which is left out of its own ranking.
        topk: cut-offs of CMC.

    Raises:
        DataError: for empty, misshapen or non-finite input, vectors of norm zero, or no query with a match.
    """
    query_unit, gallery_unit = _unit_prefixes(query, gallery)
    query_label = _labels(query_labels, len(query_unit), "query")
    gallery_label = _labels(gallery_labels, len(gallery_unit), "gallery")
    if exclude_self and len(query_unit) != len(gallery_unit):
        raise DataError(
            f"exclude_self: expected query and gallery to be the same items, found {len(query_unit)} and "
            f"{len(gallery_unit)}"
        )
    if not topk or min(topk) < 1:
        raise DataError(f"topk: expected cut-offs of at least 1, found {list(topk)}")
    ranks = np.zeros(len(query_unit), np.int64)
    precisions = np.full(len(query_unit), np.nan)
    block = max(1, BLOCK_VALUES // len(gallery_unit))
    for start in range(0, len(query_unit), block):
        rows = slice(start, start + block)
        scores = query_unit[rows] @ gallery_unit.T
        match = query_label[rows, None] == gallery_label[None, :]
        if exclude_self:
            own = torch.arange(len(scores))
            # Minus infinity without a match ranks below everything and counts nowhere.
            scores[own, start + own] = -torch.inf
            match[own, start + own] = False
        matched = match.any(1).numpy()
        ranks[rows] = np.where(matched, _first_match(scores, match).numpy(), 0)
        precisions[rows] = np.where(matched, _average_precision(scores, match).numpy(), np.nan)
    counted = ranks > 0
    if not counted.any():
        raise DataError("no query has a match in the gallery: their labels have nothing in common")
    return RetrievalMetrics(
        cmc={k: float((ranks[counted] <= k).mean()) for k in topk},
        mean_ap=float(precisions[counted].mean()),
        queries=int(counted.sum()),
        without_match=int((~counted).sum()),
        first_match=ranks,
        average_precision=precisions,
    )


def _first_match(scores: Tensor, match: Tensor) -> Tensor:
    """Rank of the best match [n]: one more than the non-matches at or above its score."""
    best = scores.masked_fill(~match, -torch.inf).amax(1, keepdim=True)
    return ((scores >= best) & ~match).sum(1) + 1


def _average_precision(scores: Tensor, match: Tensor) -> Tensor:
    """Average precision [n], float64; a match counts the precision at the end of its group of equal scores."""
    ranked, order = scores.sort(dim=1, descending=True)
    hits = match.gather(1, order)
    last = torch.ones_like(hits)
    last[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
    places = torch.arange(scores.shape[1]).expand_as(scores)
    # The end of each place's group is the nearest "last" at or after it.
    ends = torch.where(last, places, scores.shape[1]).flip(1).cummin(1).values.flip(1)
    precision = hits.cumsum(1).gather(1, ends).double() / (ends + 1)
    return (precision * hits).sum(1) / hits.sum(1).clamp(min=1)


def _unit_prefixes(query: ArrayLike, gallery: ArrayLike) -> tuple[Tensor, Tensor]:
    arrays = {"query": np.asarray(query), "gallery": np.asarray(gallery)}
    for name, array in arrays.items():
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
            raise DataError(
                f"{name}: expected floats [n, dim] with n, dim ≥ 1, found {array.dtype} {list(array.shape)}"
            )
    shared = min(array.shape[1] for array in arrays.values())
    query_unit, gallery_unit = (_unit(array[:, :shared], name) for name, array in arrays.items())
    return query_unit, gallery_unit


def _unit(array: NDArray[Any], name: str) -> Tensor:
    largest = np.abs(array).max(axis=1, keepdims=True).astype(np.float64)
    # Scaled first: squares of float32 values leave its range long before the values do.
    usable = (largest > 0) & np.isfinite(largest)
    vectors = np.divide(array, largest, where=usable, out=np.zeros(array.shape, np.float32))
    norms = np.where(np.isfinite(largest), np.linalg.norm(vectors, axis=1, keepdims=True), np.nan)
    for fault, rows in (
        ("holds a value that is not finite", np.flatnonzero(~np.isfinite(norms[:, 0]))),
        (f"has norm zero on its first {array.shape[1]} values", np.flatnonzero(norms[:, 0] == 0)),
    ):
        if len(rows):
            raise DataError(f"{name}: row {rows[0]} {fault} (and {len(rows) - 1} more); cosine is not defined for it")
    return torch.from_numpy(vectors / norms)


def _labels(labels: ArrayLike, count: int, name: str) -> Tensor:
    array = np.asarray(labels)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise DataError(f"{name} labels: expected integers [{count}], found {array.dtype} {list(array.shape)}")
    return torch.from_numpy(array.astype(np.int64))
