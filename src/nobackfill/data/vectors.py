"""Vectors of other models as a kind of sample: what the new model made of some items, and the old one of the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Array, unit
from nobackfill.config import VectorData
from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.data.samples import VectorSamples, for_old_model
from nobackfill.data.splits import Split, kept_or_held_out_places
from nobackfill.data.summary import DataSummary
from nobackfill.errors import DataError
from nobackfill.files import read_npy

if TYPE_CHECKING:
    import torch

    from nobackfill.data.loader import VectorLoader


CHECKED = 65_536  # rows at a time


def load_vectors(data: VectorData, split: Split) -> VectorSamples:
    """The rows of `data.vectors` as samples, those of `data.old_vectors` as what the old model says of them.

    Without `data.labels` every item is of one nameless class.

    Raises:
        DataError: for files that are no arrays, or do not belong together; for rows that are zero or not finite; for a
            test split with neither `data.test_rows` nor `data.holdout`.
    """
    samples = _mapped(data)
    rows = split_rows(data, split, len(samples))
    some = samples if rows is None else samples.take(rows)
    arrays = ((some.vectors, data.vectors), (some.old_inputs, data.old_inputs), (some.old_vectors, data.old_vectors))
    for array, path in arrays:
        if array is not None:
            _check_rows(array, str(path), rows)
    return some


def split_rows(data: VectorData, split: Split, count: int) -> NDArray[np.int64] | None:
    """The rows of a split, of so many; None: all, which then stay mapped. Raises `DataError`."""
    if split == "test" and not data.holdout:
        if data.test_rows is None:
            raise DataError(
                "vectors have no test split; name its rows in data.test_rows, or hold some out with data.holdout"
            )
        return _rows(data, "test_rows", count)
    rows = _training_rows(data, count)
    if data.holdout is None:
        return rows
    places = kept_or_held_out_places(count if rows is None else len(rows), data.holdout, split, str(data.vectors))
    return places if rows is None else rows[places]


def summarise_vectors(data: VectorData) -> DataSummary:
    """Sizes from the heads of the files; the classes from the labels."""
    samples = _mapped(data)
    rows, old = _training_rows(data, len(samples)), samples.old_vectors
    return DataSummary(
        VectorPreprocessing(input_dim=samples.vectors.shape[1]),
        count=(len(samples) if rows is None else len(rows)),
        classes=len(samples.class_names),
        old_space=None if old is None else (data.old_name, old.shape[1], data.old_fingerprint),
        old_input=for_old_model(samples).vectors.shape[1] if old is None else None,
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


def _mapped(data: VectorData) -> VectorSamples:
    """All rows, mapped."""
    new = read_rows(data.vectors)
    old = {key: read_rows(path) for key, path in data.files.items() if key in ("old_vectors", "old_inputs")}
    for key, rows in old.items():
        if len(rows) != len(new):
            raise DataError(f"{data.files[key]}: {len(rows)} rows, but {data.vectors} has {len(new)}")
    labels = np.zeros(len(new), np.int64)
    names: tuple[str, ...] = ("0",)
    if data.labels is not None:
        given = read_npy(data.labels)
        labels, names = class_numbers(given, len(new), str(data.labels)), tuple(map(str, np.unique(given)))
    return VectorSamples(
        new, labels, names, str(data.vectors), old_vectors=old.get("old_vectors"), old_inputs=old.get("old_inputs")
    )


def _check_rows(array: Array, name: str, rows: NDArray[np.int64] | None) -> None:
    """Raise `DataError` for one without a direction, by its number in the file."""
    for start in range(0, len(array), CHECKED):
        numbers = np.arange(start, min(len(array), start + CHECKED)) if rows is None else rows[start : start + CHECKED]
        unit(array[start : start + CHECKED], name, numbers=numbers)


def _training_rows(data: VectorData, count: int) -> NDArray[np.int64] | None:
    """The rows to train on, or to train on and hold out, of so many; None: all, which then stay mapped."""
    if data.test_rows is None:
        return None if data.rows is None else _rows(data, "rows", count)
    test = _rows(data, "test_rows", count)
    if data.rows is None:
        others = np.setdiff1d(np.arange(count), test)
        if not len(others):
            raise DataError(f"{data.test_rows}: names all {count} rows; none is left to train on")
        return others
    rows = _rows(data, "rows", count)
    both = np.intersect1d(rows, test)
    if len(both):
        raise DataError(f"{data.test_rows}: row {both[0]} is also in {data.rows}; no item may be in both")
    return rows


def _rows(data: VectorData, key: str, count: int) -> NDArray[np.int64]:
    path = data.files[key]
    rows = read_npy(path)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
        hint = "; np.flatnonzero makes row numbers of a mask" if rows.dtype.kind == "b" else ""
        raise DataError(f"{path}: expected row numbers 0…{count - 1}, found {rows.dtype} {list(rows.shape)}{hint}")
    outside = rows[(rows < 0) | (rows >= count)]
    if len(outside):
        raise DataError(f"{path}: expected row numbers 0…{count - 1}, found {outside[0]}")
    known, times = np.unique(rows, return_counts=True)
    if len(known) < len(rows):
        raise DataError(
            f"{path}: row {known[times > 1][0]} is named {times.max()} times; a copy would be found as a match: name "
            "each row once"
        )
    return rows.astype(np.int64)


def read_rows(path: Path) -> Array:
    """Floats [n, dim] of a .npy file; raises `DataError`."""
    array = read_npy(path)
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise DataError(f"{path}: expected floats [n, dim], found {array.dtype} {list(array.shape)}")
    return array


def class_numbers(labels: Array, count: int, name: str) -> NDArray[np.int64]:
    """Labels of any kind of integer as 0 … classes−1, in the order of their values; raises `DataError`."""
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{name}: expected integers [{count}], one for each row, found {labels.dtype} {list(labels.shape)}"
        )
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
