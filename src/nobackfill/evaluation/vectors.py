"""Embeddings as they come: checked, and not converted before they must be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.arrays import Array
from nobackfill.errors import DataError


def as_table(vectors: ArrayLike, name: str) -> Array:
    """Floats [n, dim] with n, dim ≥ 1, not converted (so also memory-mapped files); else `DataError`."""
    array = np.asarray(vectors) if not isinstance(vectors, np.memmap) else vectors
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise DataError(f"{name}: expected floats [n, dim] with n, dim ≥ 1, found {array.dtype} {list(array.shape)}")
    return array
