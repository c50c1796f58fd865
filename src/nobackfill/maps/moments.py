"""First and second moments of pairs of vectors, in one pass over files of any size."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Array
from nobackfill.errors import DataError
from nobackfill.maps.pairs import unit_rows_of
from nobackfill.progress import track

Doubles = NDArray[np.float64]
ROWS = 16384  # at a time: long enough for the matrix product, short enough for the memory


@dataclass(frozen=True)
class Moments:
    """Of pairs (x, y) of unit vectors.

    Attributes:
        count: pairs.
        mean_x, mean_y: float64 [d], [m].
        xx: E[x xᵀ], float64 [d, d].
        yx: E[y xᵀ], float64 [m, d].
    """

    count: int
    mean_x: Doubles
    mean_y: Doubles
    xx: Doubles
    yx: Doubles

    def __add__(self, other: Moments) -> Moments:
        """Of both sets of pairs."""
        count = self.count + other.count
        fraction = self.count / count

        def mixed(one: Doubles, two: Doubles) -> Doubles:
            return fraction * one + (1 - fraction) * two

        return Moments(
            count,
            mixed(self.mean_x, other.mean_x),
            mixed(self.mean_y, other.mean_y),
            mixed(self.xx, other.xx),
            mixed(self.yx, other.yx),
        )

    def centred(self) -> tuple[Doubles, Doubles]:
        """Covariances: (xx, yx) about the means."""
        return (
            self.xx - np.outer(self.mean_x, self.mean_x),
            self.yx - np.outer(self.mean_y, self.mean_x),
        )


def moments(
    x: Array,
    y: Array,
    rows: NDArray[np.int64] | None = None,
    names: tuple[str, str] = ("x", "y"),
) -> Moments:
    """Moments of the rows of two arrays, each row brought to unit norm.

    Products are float32 within a block, sums over blocks float64. Memory does not grow with the number of rows.

    Args:
        x: floats [n, d] of any width, also memory-mapped.
        y: floats [n, m].
        rows: int64, ascending: use these pairs only.
        names: of the two arrays, for messages.

    Raises:
        DataError: for rows without a direction.
    """
    count = len(x) if rows is None else len(rows)
    if not count:
        raise DataError("moments: no pairs")
    d, m = x.shape[1], y.shape[1]
    sum_x, sum_y, xx, yx = np.zeros(d), np.zeros(m), np.zeros((d, d)), np.zeros((m, d))
    starts = range(0, count, ROWS)
    for start in track(starts, f"reading {count} pairs", len(starts)):
        block = slice(start, min(count, start + ROWS))
        some = block if rows is None else rows[block]
        block_x, block_y = unit_rows_of(x, some, names[0]), unit_rows_of(y, some, names[1])
        sum_x += block_x.sum(axis=0, dtype=np.float64)
        sum_y += block_y.sum(axis=0, dtype=np.float64)
        xx += block_x.T @ block_x
        yx += block_y.T @ block_x
        _let_go(x)
        _let_go(y)
    return Moments(count, sum_x / count, sum_y / count, xx / count, yx / count)


def _let_go(array: Array) -> None:
    """Give back the pages of a mapped file that were read: else the process would seem to hold the whole of it."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
