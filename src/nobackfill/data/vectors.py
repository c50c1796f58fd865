"""Vectors of other models as a data set: what the new model made of some items, and the old one of the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nobackfill.config import DataConfig
from nobackfill.data.imageset import ImageSet
from nobackfill.errors import DataError
from nobackfill.files import read_npy


def load_vectors(data: DataConfig) -> ImageSet:
    """The rows of `data.vectors` as samples, those of `data.old_vectors` as what the old model says of them.

    Without `data.labels` every item is of one nameless class.

    Raises:
        DataError: for files that are no arrays, or do not belong together.
    """
    if data.vectors is None or data.old_vectors is None:
        raise DataError("data.vectors or data.old_vectors is missing: vectors come as two .npy files, row by row")
    new, old = (read_rows(path) for path in (data.vectors, data.old_vectors))
    if len(new) != len(old):
        raise DataError(f"{data.old_vectors}: {len(old)} rows, but {data.vectors} has {len(new)}")
    labels = np.zeros(len(new), np.int64)
    if data.labels is not None:
        labels = class_numbers(read_npy(data.labels), len(new), str(data.labels))
    names = tuple(map(str, range(int(labels.max()) + 1))) if len(labels) else ("0",)
    whole = ImageSet(new, labels, names, str(data.vectors), given=old)
    if data.rows is None:
        return whole
    rows = read_npy(data.rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or rows.min() < 0 or rows.max() >= len(new):
        raise DataError(f"{data.rows}: expected row numbers 0…{len(new) - 1}, found {rows.dtype} {list(rows.shape)}")
    return whole.take(rows.astype(np.int64))


def read_rows(path: Path) -> NDArray[Any]:
    """Floats [n, dim] of a .npy file; raises `DataError`."""
    array = read_npy(path)
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise DataError(f"{path}: expected floats [n, dim], found {array.dtype} {list(array.shape)}")
    return array


def class_numbers(labels: NDArray[Any], count: int, name: str) -> NDArray[np.int64]:
    """Labels of any kind of integer as 0 … classes−1, in the order of their values; raises `DataError`."""
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"{name}: expected integers [{count}], found {labels.dtype} {list(labels.shape)}")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
