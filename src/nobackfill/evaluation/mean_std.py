"""Values over seeds: mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation (n−1).

    Attributes:
        mean: None where a value is not defined, such as a gain where there is nothing to gain.
        std: None where a single value tells no deviation, or the mean is None.
        seeds: how many values.
    """

    mean: float | None
    std: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanStd:
        """Of one value a seed; NaN is none."""
        if not all(map(math.isfinite, values)):
            return cls(None, None, len(values))
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), deviation, len(values))

    def text(self, factor: float = 1.0, digits: int = 1, sign: str = "") -> str:
        """`mean ± std`, scaled; the mean alone where there is no deviation, a dash where there is no mean."""
        if self.mean is None:
            return "–"
        mean = f"{factor * self.mean:{sign}.{digits}f}"
        return mean if self.std is None else f"{mean} ± {factor * self.std:.{digits}f}"
