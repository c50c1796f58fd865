"""The compiled heart of the metrics: where a query's matches stand in its ranking, without sorting the ranking.

Only the matches are sorted. For each of them the items at or above its score are counted; that decides every rank
metric exactly. Items below the lowest match are dropped first, so a good ranking costs one look at each score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

FEW = 512  # matches up to which comparing with each of them beats searching among them: comparisons are vectorised


def _compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    try:
        compiled: Callable[Arguments, Result] = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep the machine code: compile it anew in every process
        compiled = numba.njit(nogil=True)(function)
    return compiled


@_compiled
def _count_by_comparing(items: Floats, count: int, matches: Floats, above: Integers) -> None:
    """above[j] = number of items ≥ matches[j]; four matches at a time share each item's load."""
    last = len(matches) - 1
    for j in range(0, last + 1, 4):
        m0, m1 = matches[j], matches[min(j + 1, last)]
        m2, m3 = matches[min(j + 2, last)], matches[min(j + 3, last)]
        c0, c1, c2, c3 = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        for i in range(count):
            score = items[i]
            c0 += np.int32(score >= m0)
            c1 += np.int32(score >= m1)
            c2 += np.int32(score >= m2)
            c3 += np.int32(score >= m3)
        above[j] = c0
        above[min(j + 1, last)] = c1
        above[min(j + 2, last)] = c2
        above[min(j + 3, last)] = c3


@_compiled
def _count_by_searching(items: Floats, count: int, matches: Floats, above: Integers) -> None:
    """The same by binary search: each item adds to the highest match it reaches, then sums from the top."""
    above[:] = 0
    for i in range(count):
        score, low, size = items[i], 0, len(matches)
        while size > 1:  # without branches that depend on data
            half = size >> 1
            low = low + half if matches[low + half] <= score else low
            size -= half
        above[low] += 1  # items below the lowest match are not among these
    for j in range(len(matches) - 2, -1, -1):
        above[j] += above[j + 1]
    for j in range(1, len(matches)):  # an item that ties with several matches reached the last of them
        if matches[j] == matches[j - 1]:
            above[j] = above[j - 1]


@_compiled
def _metrics(
    matches: Floats, above: Integers, cutoffs: Integers, hits: Integers, gain: Doubles
) -> tuple[int, float, float]:
    """Rank of the best match, average precision, that cut at R; adds to hits and gain [c]. Matches are ascending."""
    r = len(matches)
    total, total_at_r, tied, first = 0.0, 0.0, r, 0
    for j in range(r - 1, -1, -1):  # best match first
        if j == r - 1 or matches[j] != matches[j + 1]:
            tied = j
            while tied > 0 and matches[tied - 1] == matches[j]:
                tied -= 1
        reached = r - tied  # matches at or above this score
        total += reached / above[j]
        place = r - j  # among the matches
        rank = place + above[j] - reached  # behind every non-match it ties with
        if j == r - 1:
            first = rank
        if rank <= r:
            total_at_r += place / rank
        for c in range(len(cutoffs)):
            if rank <= cutoffs[c]:
                hits[c] += 1
                gain[c] += 1 / np.log2(1 + rank)
    return first, total / r, total_at_r / r


@_compiled
def rank_matches(
    scores: Floats,
    n_g: int,
    starts: Integers,
    stops: Integers,
    items: Integers,
    own: Integers,
    cutoffs: Integers,
    number: Integers,
    first: Integers,
    precision: Doubles,
    precision_at_r: Doubles,
    hits: Integers,
    gain: Doubles,
) -> None:
    """Fill the per-query results of one block.

    Args:
        scores: float32 [b, ≥ n_g]; columns from n_g on are padding.
        n_g: size of the gallery.
        starts: int64 [b], with `stops` and `items` the matches (`Relevance`).
        stops: int64 [b].
        items: int64, flat.
        own: int64 [b], the gallery item that is the query itself, or −1.
        cutoffs: int64 [c].
        number: int64 [b] ← how many matches there are, the query itself left out.
        first: int64 [b] ← rank of the best match, from 1; untouched, like all below, without a match.
        precision: float64 [b] ← average precision, tied items as one group.
        precision_at_r: float64 [b] ← average precision cut at R, the number of matches; below ties.
        hits: int64 [b, c] ← matches among the first k; below ties.
        gain: float64 [b, c] ← discounted cumulative gain of the first k; below ties.
    """
    buffer = np.empty(n_g, np.float32)
    for query in range(len(starts)):
        row = scores[query]
        matches = np.empty(stops[query] - starts[query], np.float32)
        r = 0
        for place in range(starts[query], stops[query]):
            if items[place] != own[query]:
                matches[r] = row[items[place]]
                r += 1
        number[query] = r
        if r == 0:
            continue
        matches = np.sort(matches[:r])
        count = 0
        for item in range(n_g):  # without a branch: the next score overwrites one that is too low
            buffer[count] = row[item]
            count += row[item] >= matches[0]
        above = np.empty(r, np.int64)
        if r <= FEW:
            _count_by_comparing(buffer, count, matches, above)
        else:
            _count_by_searching(buffer, count, matches, above)
        if own[query] >= 0:
            for j in range(r):
                above[j] -= row[own[query]] >= matches[j]

        first[query], precision[query], precision_at_r[query] = _metrics(
            matches, above, cutoffs, hits[query], gain[query]
        )
