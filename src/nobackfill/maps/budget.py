"""What every method may spend on choosing its settings, all by the same validation pairs.

A setting that costs no training is chosen from at most 13 values; a method that is trained is trained twice, at two
learning rates and for as many steps as any other.
"""

from __future__ import annotations

import numpy as np

PENALTIES = tuple(float(value) for value in np.logspace(-4, 2, 13))
RANKS, RANK_PENALTIES = (8, 32, 128), (1e-3, 1e-2, 0.1, 1.0)  # of `low_rank`, every pair of them
ALPHAS = tuple(step / 10 for step in range(11))  # of `slerp`, as published
RATES = (1e-3, 1e-4)
STEPS, BATCH, MOST_EPOCHS = 3000, 256, 30


def epochs_for(rows: int) -> int:
    """Epochs of training on this many pairs."""
    return int(np.clip(round(STEPS * BATCH / rows), 2, MOST_EPOCHS))
