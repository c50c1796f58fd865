"""Splits of rows that belong together: what shares a text stays on one side."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import DataError


def connected(*keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """A group number for each row, int64 [n]: rows that share a value of any key, also through others, share it."""
    parent = list(range(len(keys[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for key in keys:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(key):
            one, other = root(row), root(first.setdefault(value, row))
            parent[max(one, other)] = min(one, other)
    return np.unique([root(row) for row in range(len(parent))], return_inverse=True)[1].astype(np.int64)


def hold_out(groups: NDArray[np.int64], count: int, origin: str) -> NDArray[np.bool_]:
    """Whole groups, at random but always the same, of at most `count` rows together: bool [n], the rows held out.

    Args:
        groups: int64 [n], group of each row.
        count: rows wanted.
        origin: what the rows were read from, for messages.

    Raises:
        DataError: if all rows, or none, would be held out.
    """
    sizes = np.bincount(groups)
    held = np.zeros(len(sizes), np.bool_)
    taken = 0
    for group in np.random.default_rng(1).permutation(len(sizes)):
        if taken + sizes[group] <= count:
            held[group] = True
            taken += int(sizes[group])
        if taken == count:
            break
    if not taken or taken == len(groups):
        raise DataError(
            f"{origin}: cannot hold out {count} of {len(groups)} rows: rows that share a text stay together, and the "
            f"largest such group has {int(sizes.max())}; give another fraction or a file of test rows"
        )
    return held[groups]
