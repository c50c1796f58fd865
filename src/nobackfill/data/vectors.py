"""Vectors of other models as a kind of sample: what the new model made of some items, and the old one of the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Array
from nobackfill.config import VectorData
from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.data.samples import VectorSamples
from nobackfill.data.splits import Split, kept_or_held_out
from nobackfill.data.summary import DataSummary
from nobackfill.errors import DataError
from nobackfill.files import read_npy

if TYPE_CHECKING:
    import torch

    from nobackfill.data.loader import VectorLoader


def load_vectors(data: VectorData, split: Split) -> VectorSamples:
    """The rows of `data.vectors` as samples, those of `data.old_vectors` as what the old model says of them.

    Without `data.labels` every item is of one nameless class.

    Raises:
        DataError: for files that are no arrays, or do not belong together; for a test split without `data.holdout`.
    """
    if split == "test" and not data.holdout:
        raise DataError("vectors have no test split; hold some out with data.holdout")
    samples, rows = _mapped(data)
    return kept_or_held_out(samples if rows is None else samples.take(rows), data.holdout, split)


def summarise_vectors(data: VectorData) -> DataSummary:
    """Sizes from the heads of the files; the classes from the labels."""
    samples, rows = _mapped(data)
    old = samples.old_vectors
    return DataSummary(
        VectorPreprocessing(input_dim=samples.vectors.shape[1]),
        count=(len(samples) if rows is None else len(rows)),
        classes=len(samples.class_names),
        old_space=None if old is None else (data.old_name, old.shape[1]),
    )


def vector_loader(
    samples: VectorSamples,
    preprocessing: VectorPreprocessing,
    data: VectorData,  # noqa: ARG001 (vectors have one view only)
    device: torch.device,
    *,
    resident: bool,
) -> VectorLoader:
    """See `nobackfill.data.open_loader`."""
    from nobackfill.data.loader import VectorLoader  # needs torch

    return VectorLoader(samples.vectors, preprocessing, device, resident=resident)


def _mapped(data: VectorData) -> tuple[VectorSamples, NDArray[np.int64] | None]:
    """All samples, mapped, and the rows to use of them; None: all."""
    new, old = (read_rows(path) for path in (data.vectors, data.old_vectors))
    if len(new) != len(old):
        raise DataError(f"{data.old_vectors}: {len(old)} rows, but {data.vectors} has {len(new)}")
    labels = np.zeros(len(new), np.int64)
    if data.labels is not None:
        labels = class_numbers(read_npy(data.labels), len(new), str(data.labels))
    names = tuple(map(str, range(int(labels.max()) + 1))) if len(labels) else ("0",)
    samples = VectorSamples(new, labels, names, str(data.vectors), old_vectors=old)
    if data.rows is None:
        return samples, None
    rows = read_npy(data.rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or rows.min() < 0 or rows.max() >= len(new):
        raise DataError(f"{data.rows}: expected row numbers 0…{len(new) - 1}, found {rows.dtype} {list(rows.shape)}")
    return samples, rows.astype(np.int64)


def read_rows(path: Path) -> Array:
    """Floats [n, dim] of a .npy file; raises `DataError`."""
    array = read_npy(path)
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise DataError(f"{path}: expected floats [n, dim], found {array.dtype} {list(array.shape)}")
    return array


def class_numbers(labels: Array, count: int, name: str) -> NDArray[np.int64]:
    """Labels of any kind of integer as 0 … classes−1, in the order of their values; raises `DataError`."""
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"{name}: expected integers [{count}], found {labels.dtype} {list(labels.shape)}")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
