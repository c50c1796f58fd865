"""Trying again while a store does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from nobackfill.gallery.stores.base import UnreachableError

Value = TypeVar("Value")


def with_retries(
    action: Callable[[], Value], tries: int = 6, pause: float = 0.5, errors: type[Exception] = UnreachableError
) -> Value:
    """The action's value; after one of these errors it is called again.

    Args:
        action: called at most `tries` times.
        tries: as above.
        pause: seconds before the second try; each further pause is twice as long.
        errors: worth another try; the last one is raised.
    """
    for attempt in range(tries - 1):
        try:
            return action()
        except errors:
            time.sleep(pause * 2**attempt)
    return action()
