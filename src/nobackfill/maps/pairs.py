"""Pairs of vectors to fit on, and items held out to assess by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Array, Floats, unit
from nobackfill.data.vectors import class_numbers, read_rows
from nobackfill.errors import DataError
from nobackfill.evaluation.relevance import Relevant
from nobackfill.files import read_npy
from nobackfill.models.spec import OlderSpace

Integers = NDArray[np.int64]
HELD_OUT, VALIDATION = 10_000, 2_000  # rows at most
FEWEST = 50  # pairs; below that there is nothing to fit, and nothing to assess by


@dataclass(frozen=True)
class Pairs:
    """The same items by two models, on file.

    Attributes:
        old, new: .npy files of floats [n, d_o] and [n, d], row by row.
        labels: .npy file of class numbers [n], if they are known.
        side: .npy file of a second vector of each item, floats [n, d_s], that is stored beside the old one.
        old_name, new_name: of the models.
        old_space, new_space: the models themselves, where more than their names is known.
        old_prefixes: older generations whose vectors the old model searches, newest first.
    """

    old: Path
    new: Path
    labels: Path | None = None
    old_name: str = "old"
    new_name: str = "new"
    old_space: OlderSpace | None = None
    new_space: OlderSpace | None = None
    old_prefixes: tuple[OlderSpace, ...] = ()
    side: Path | None = None

    def read(self) -> tuple[Array, Array, Integers | None]:
        """Old vectors, new vectors and class numbers, mapped; raises `DataError` where they do not belong together."""
        old, new = read_rows(self.old), read_rows(self.new)
        if len(old) != len(new):
            raise DataError(
                f"{self.new}: {len(new)} rows, but {self.old} has {len(old)}; expected one row per pair in each"
            )
        labels = None if self.labels is None else class_numbers(read_npy(self.labels), len(old), str(self.labels))
        return old, new, labels

    def read_side(self, count: int) -> Array | None:
        """The second vectors, mapped, if there are any; raises `DataError` unless there are `count` of them."""
        if self.side is None:
            return None
        side = read_rows(self.side)
        if len(side) != count:
            raise DataError(f"{self.side}: {len(side)} rows, but {self.old} has {count}; expected one row per item")
        return side


def unit_rows_of(array: Array, rows: NDArray[np.int64] | slice, name: str) -> Floats:
    """Some rows of a file at unit norm, float32 [n, dim]; raises `DataError` with a bad row's number in the file."""
    return unit(array[rows], name, numbers=np.arange(len(array))[rows])


@dataclass(frozen=True)
class Held:
    """Items and queries that no map was fitted on.

    Attributes:
        old_gallery, new_gallery: floats [n, d_o], [n, d].
        old_query, new_query: floats [q, d_o], [q, d].
        labels: class numbers of queries [q] and of gallery [n].
        relevant: instead of labels, for each query its gallery items.
        exclude_self: the queries are the gallery's items.
        side: second vectors of the gallery's items, floats [n, d_s], if the fitted pairs have some.
    """

    old_gallery: Array
    new_gallery: Array
    old_query: Array
    new_query: Array
    labels: tuple[Integers, Integers] | None = None
    relevant: Relevant | None = None
    exclude_self: bool = False
    side: Array | None = None

    @classmethod
    def of(cls, old: Array, new: Array, labels: Integers | None, side: Array | None = None) -> Held:
        """Every item is a query and finds the others."""
        both = None if labels is None else (labels, labels)
        return cls(old, new, old, new, both, None, exclude_self=True, side=side)


@dataclass(frozen=True)
class Split:
    """Rows of the pairs, ascending: to fit on, to choose settings by, and to assess by (none if those come apart)."""

    fit: Integers
    validation: Integers
    held: Integers


def split_rows(count: int, fraction: float, seed: int, *, assessed_apart: bool) -> Split:
    """A random split; of `fraction` at most 10,000 rows are held out, of the rest a tenth, at most 2,000, validate.

    Raises:
        DataError: if there are too few pairs.
    """
    order = np.random.default_rng([seed, 2]).permutation(count)
    held, validation = _apart(count, fraction, assessed_apart=assessed_apart)
    if not _enough(count, held, validation, assessed_apart=assessed_apart):
        fewest = next(
            (
                more
                for more in range(count + 1, 10**6)
                if _enough(more, *_apart(more, fraction, assessed_apart=assessed_apart), assessed_apart=assessed_apart)
            ),
            None,
        )
        advice = f"give at least {fewest}" if fewest else "hold fewer of them out"
        raise DataError(f"{count} pairs are too few to fit on some and assess on others; {advice}")
    bounds = np.split(order, [held, held + validation])
    return Split(fit=np.sort(bounds[2]), validation=np.sort(bounds[1]), held=np.sort(bounds[0]))


def _apart(count: int, fraction: float, *, assessed_apart: bool) -> tuple[int, int]:
    """How many rows are held out, and how many of the others validate."""
    held = 0 if assessed_apart else min(HELD_OUT, round(fraction * count))
    return held, min(VALIDATION, (count - held) // 10)


def _enough(count: int, held: int, validation: int, *, assessed_apart: bool) -> bool:
    fit = count - held - validation
    return fit >= FEWEST and validation >= FEWEST // 10 and (assessed_apart or held >= FEWEST)


def without_twins(held: Held, new: Array, rows: Integers) -> tuple[Held, int]:
    """The held-out queries whose new vector is not, value by value, that of a fitted pair; and how many were dropped.

    A query that is a gallery item as well is dropped from both.
    """
    marks = _marks(held.new_query)
    asked, known = set(marks), set[int]()  # none of the fitted pairs, which may be many
    for start in range(0, len(rows), 65536):
        known |= asked.intersection(_marks(new[rows[start : start + 65536]]))
    keep = np.array([mark not in known for mark in marks])
    dropped = int((~keep).sum())
    if not dropped:
        return held, 0
    if not keep.any():
        raise DataError("all held-out queries are among the fitted pairs; hold out other items")
    old_gallery, new_gallery, relevant, side = held.old_gallery, held.new_gallery, held.relevant, held.side
    if held.exclude_self:
        old_gallery, new_gallery, side = old_gallery[keep], new_gallery[keep], None if side is None else side[keep]
    if isinstance(relevant, np.ndarray):
        relevant = relevant[keep]
    elif relevant is not None:
        relevant = [one for one, kept in zip(relevant, keep, strict=True) if kept]
    labels = held.labels
    if labels is not None:
        labels = (labels[0][keep], labels[1][keep] if held.exclude_self else labels[1])
    kept = Held(
        old_gallery, new_gallery, held.old_query[keep], held.new_query[keep], labels, relevant, held.exclude_self, side
    )
    return kept, dropped


def _marks(rows: Array) -> Sequence[int]:
    return [hash(row.tobytes()) for row in np.ascontiguousarray(rows, np.float32)]
