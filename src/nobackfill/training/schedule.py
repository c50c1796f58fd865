"""The learning rate as a function of epoch and step."""

from __future__ import annotations

import math

from nobackfill.config import PER_EPOCH, RunConfig, ScheduleConfig

RISE, GAMMA = 0.2, 0.1  # where the config names none


def learning_rate(config: RunConfig, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Rate of one step, as `ScheduleConfig` describes the schedules.

    By epoch, the first one after the warm-up has the full rate, and the cosine would reach zero one epoch after the
    last. By step, the first and the last step have rates above zero, and the peak may lie between two steps.

    Args:
        config: `optimizer.lr` is the peak.
        epoch: from 0.
        step: of the epoch, from 0.
        steps: of an epoch.
    """
    peak, schedule = config.optimizer.lr, config.schedule
    if schedule.name in PER_EPOCH:
        return peak * _by_epoch(schedule, epoch, config.epochs)
    rise = RISE if schedule.rise is None else schedule.rise
    done = (epoch * steps + step + 0.5) / (config.epochs * steps)
    part = done / rise if done < rise else (1 - done) / (1 - rise)
    return peak * (part if schedule.name == "linear" else 0.5 * (1 - math.cos(math.pi * part)))


def _by_epoch(schedule: ScheduleConfig, epoch: int, epochs: int) -> float:
    warmup = schedule.warmup_epochs
    if epoch < warmup:
        return (epoch + 1) / warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "multistep":
        gamma = GAMMA if schedule.gamma is None else schedule.gamma
        return math.prod(gamma for milestone in schedule.milestones if milestone <= epoch)
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
