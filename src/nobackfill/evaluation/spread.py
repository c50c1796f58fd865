"""Figures over seeds: mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n−1); NaN where a single value tells no deviation."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Spread of one figure over its seeds."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan)

    def text(self, factor: float = 1.0, digits: int = 1, sign: str = "") -> str:
        """`mean ± sd`, scaled; the mean alone where there is no deviation, a dash where there is no mean."""
        if math.isnan(self.mean):
            return "–"
        mean = f"{factor * self.mean:{sign}.{digits}f}"
        return mean if math.isnan(self.sd) else f"{mean} ± {factor * self.sd:.{digits}f}"
