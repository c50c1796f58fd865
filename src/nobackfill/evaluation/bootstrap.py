"""Uncertainty of means over queries and seeds: a paired bootstrap with 95 % intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Word = Literal["better", "worse", "cannot tell"]
AnyInterval = TypeVar("AnyInterval", bound="Interval")
REPLICATES = 2000
CHUNK_VALUES = 2**23  # random draws held at a time


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls: type[AnyInterval], mean: float, replicates: Doubles) -> AnyInterval:
        """Percentiles 2.5 and 97.5 of the replicates [b] around a mean."""
        low, high = np.percentile(replicates, (2.5, 97.5))
        return cls(float(mean), float(low), float(high))

    def points(self) -> str:
        """`+1.2 [+0.3, +2.1]`, of a figure in 0–1."""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


class Difference(Interval):
    """Of two figures of which more is better, the one judged minus the one it is held against."""

    @property
    def word(self) -> Word:
        """What it says: its sign, if zero lies outside the interval."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "cannot tell"


def paired_bootstrap(values: Doubles, *, replicates: int = REPLICATES, seed: int = 0) -> tuple[Doubles, Doubles]:
    """Means of several figures, and their replicates under resampling of queries and seeds.

    A replicate draws the queries once, with replacement, for all figures and seeds: differences and ratios of figures
    taken within a replicate are paired. Of several seeds (training runs) it draws one less than there are, so that
    their share of the variance is not underestimated (Rao & Wu, JASA 1988); with two or three of them an interval is
    still a rough one. The gallery is taken as given.

    Args:
        values: float64 [figures, seeds, queries], finite.
        replicates: how many to draw.
        seed: of the draws.

    Returns:
        means float64 [figures] and replicates float64 [replicates, figures].
    """
    figures, seeds, queries = values.shape
    random = np.random.default_rng(seed)
    flat = values.reshape(figures * seeds, queries).T
    result = np.empty((replicates, figures))
    rows = max(1, CHUNK_VALUES // queries)
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        drawn = random.integers(queries, size=(count, queries)) + queries * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
        means = (weights.astype(np.float64) @ flat / queries).reshape(count, figures, seeds)
        taken = random.integers(seeds, size=(count, max(1, seeds - 1)))
        result[start : start + count] = np.take_along_axis(means, taken[:, None, :], axis=2).mean(2)
    return values.mean((1, 2)), result
