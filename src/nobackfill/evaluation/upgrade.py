"""What an upgrade gains and costs, from retrieval scores M(query/gallery) of the old and the new model."""

from __future__ import annotations

import math


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
