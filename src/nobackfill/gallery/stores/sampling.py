"""Drawing items at random by their sequence numbers, without reading all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")


def sampled(
    low: int, high: int, count: int, seed: int, look_up: Callable[[list[int]], dict[int, Value]]
) -> list[Value]:
    """What `count` random numbers of low … high (both included) stand for, in ascending order; all if there are fewer.

    Args:
        low: smallest number in use.
        high: largest number in use; numbers between may be free.
        count: how many are wanted.
        seed: of the choice.
        look_up: numbers to what they stand for; free ones are left out.
    """
    span, size = high - low + 1, count
    while True:
        drawn = low + np.random.default_rng(seed).choice(span, min(span, size), replace=False)
        known = look_up(drawn.tolist())
        if len(known) >= count or size >= span:
            chosen = [number for number in drawn.tolist() if number in known][:count]
            return [known[number] for number in sorted(chosen)]
        size = max(16, 4 * size)  # many numbers are free
