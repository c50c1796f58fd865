"""What every method may spend on choosing its settings, all by the same validation pairs.

A setting that costs no training is chosen from at most 13 values; a method that is trained is trained twice, at two
learning rates, for at most 3,000 steps of 256 pairs. What starts from a closed form sees each pair at most 30 times,
what starts from nothing at most 80 times (FCT's own number of epochs).
"""

from __future__ import annotations

import numpy as np

PENALTIES = tuple(float(value) for value in np.logspace(-4, 2, 13))
RANKS, RANK_PENALTIES = (8, 32, 128), (1e-3, 1e-2, 0.1, 1.0)  # of `low_rank`, every pair of them
ALPHAS = tuple(step / 10 for step in range(11))  # of `slerp`, as published
RATES = (1e-3, 1e-4)
STEPS, BATCH, MOST_EPOCHS, MOST_FROM_NOTHING = 3000, 256, 30, 80


def epochs_for(rows: int, most: int = MOST_EPOCHS) -> int:
    """Epochs of training on this many pairs."""
    return int(np.clip(round(STEPS * BATCH / rows), 2, most))
