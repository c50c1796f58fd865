"""What an upgrade gains and costs, from retrieval scores M(query/gallery) of the models in a lineage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nobackfill.errors import DataError

Triangle = Sequence[Sequence[float]]
"""Row i holds M(i/0) … M(i/i) of generation i, oldest first."""


def update_gain(new_old: float, old_old: float, upper_bound: float) -> float:
    """(M(new/old) − M(old/old)) / (M(independent new/new) − M(old/old)): 0 is doing nothing, 1 a full backfill.

    NaN where the upper bound is not above the status quo: then there is nothing to gain.
    """
    possible = upper_bound - old_old
    return (new_old - old_old) / possible if possible > 0 else math.nan


def self_accuracy_loss(new_new: float, upper_bound: float) -> float:
    """M(independent new/new) − M(new/new): what compatibility costs the new model, in the score's own units."""
    return upper_bound - new_new


def is_compatible(new_old: float, old_old: float) -> bool:
    """Empirical compatibility: M(new/old) > M(old/old)."""
    return new_old > old_old


def average_compatibility(matrix: Triangle) -> float:
    """AC: share of the pairs i > j with M(i/j) > M(j/j); raises `DataError` for a single generation."""
    pairs = [is_compatible(row[j], matrix[j][j]) for i, row in enumerate(matrix) for j in range(i)]
    if not pairs:
        raise DataError("average compatibility: expected two generations or more, found one")
    return sum(pairs) / len(pairs)


def average_score(matrix: Triangle) -> float:
    """AM: mean of the lower triangle with its diagonal."""
    values = [value for row in matrix for value in row]
    return sum(values) / len(values)
