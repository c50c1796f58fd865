"""Embeddings as they are compared: checked, cut to a prefix, of unit norm, in float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.arrays import Array
from nobackfill.errors import DataError

Floats = NDArray[np.float32]
ROWS = 2048  # converted at a time: few enough for the caches
SAFE = 1e-24  # float32 squares between this and its inverse have lost nothing


def as_table(vectors: ArrayLike, name: str) -> Array:
    """Floats [n, dim] with n, dim ≥ 1, not converted (so also memory-mapped files); else `DataError`."""
    array = np.asarray(vectors) if not isinstance(vectors, np.memmap) else vectors
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise DataError(f"{name}: expected floats [n, dim] with n, dim ≥ 1, found {array.dtype} {list(array.shape)}")
    return array


def unit(array: Array, name: str, dim: int | None = None) -> Floats:
    """The first `dim` values (default: all) of each row, of unit norm; raises `DataError` where there is none."""
    dim = array.shape[1] if dim is None else dim
    result = np.empty((len(array), dim), np.float32)
    bad: dict[str, list[int]] = {"holds a value that is not finite": [], f"has norm zero on its first {dim} values": []}
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
            raise DataError(
                f"{name}: row {places[0]} {fault} (and {len(places) - 1} more); cosine is not defined for it"
            )
    return result
