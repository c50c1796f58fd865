"""The learning rate as a function of the epoch."""

from __future__ import annotations

import math

from nobackfill.config import RunConfig


def learning_rate(config: RunConfig, epoch: int) -> float:
    """Rate of one epoch (from 0): linear warm-up lr·(epoch+1)/warm-up, then cosine to zero, or constant.

    The first epoch after the warm-up has the full rate; a cosine would reach zero one epoch after the last.
    """
    peak, warmup = config.optimizer.lr, config.schedule.warmup_epochs
    if epoch < warmup:
        return peak * (epoch + 1) / warmup
    if config.schedule.name == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (config.epochs - warmup)))
