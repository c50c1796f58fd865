"""Arrays of rows: of a type that is not known before they are looked at, and brought to unit norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import DataError

Array = NDArray[Any]
Floats = NDArray[np.float32]
ROWS = 2048  # converted at a time: few enough for the caches
SAFE = 1e-24  # float32 squares between this and its inverse have lost nothing


def at_a_time(batch_size: int | None, default: int) -> int:
    """How many inputs to embed at a time; raises `DataError` for fewer than one."""
    if batch_size is None:
        return default
    if batch_size < 1:
        raise DataError(f"batch_size: expected at least 1, found {batch_size}")
    return batch_size


def unit(array: Array, name: str, dim: int | None = None, numbers: NDArray[np.int64] | None = None) -> Floats:
    """The first `dim` values (default: all) of each row, at unit norm.

    Args:
        array: floats [n, ≥ dim].
        name: of the array, for messages.
        dim: as above.
        numbers: of the rows in their file, for messages; int64 [n], default 0 … n − 1.

    Returns:
        float32 [n, dim].

    Raises:
        DataError: naming the first row without a direction.
    """
    dim = array.shape[1] if dim is None else dim
    result = np.empty((len(array), dim), np.float32)
    empty = "is zero" if dim == array.shape[1] else f"is zero on its first {dim} values"
    bad: dict[str, list[int]] = {"holds a value that is not finite": [], empty: []}
    infinite, zero = bad.values()
    for start in range(0, len(array), ROWS):
        rows = np.asarray(array[start : start + ROWS, :dim])
        with np.errstate(over="ignore", invalid="ignore"):
            plain = rows.astype(np.float32, copy=False)
            squares = np.einsum("ij,ij->i", plain, plain)
        if ((squares > SAFE) & (squares < 1 / SAFE)).all():
            np.multiply(plain, 1 / np.sqrt(squares)[:, None], out=result[start : start + ROWS])
            continue
        # Scaled first: squares of float32 values leave its range long before the values do.
        largest = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64)
        finite = np.isfinite(largest)
        infinite += (start + np.flatnonzero(~finite)).tolist()
        zero += (start + np.flatnonzero(largest == 0)).tolist()
        scaled = np.divide(rows, largest, where=finite & (largest > 0), out=np.zeros(rows.shape, np.float32))
        norms = np.linalg.norm(scaled, axis=1, keepdims=True)
        np.divide(scaled, norms, where=norms > 0, out=result[start : start + ROWS])
    for fault, places in bad.items():
        if places:
            first = places[0] if numbers is None else int(numbers[places[0]])
            more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
            raise DataError(f"{name}: row {first} {fault}{more}; cosine is not defined for it")
    return result
