"""The contract of an embedder: item ids in, vectors of one model or an error for each item out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.base import Floats
from nobackfill.gallery.vectors import unit_rows

UNUSABLE = "its vector is zero or not finite"


@dataclass(frozen=True)
class Embedded:
    """What an embedder makes of some items.

    Attributes:
        ids: of the items that were embedded.
        vectors: theirs, floats [n, dim] of any norm. A row that is zero or not finite counts as an error of its item.
        errors: id of each other item → why it was not.
    """

    ids: Sequence[str]
    vectors: ArrayLike
    errors: Mapping[str, str] = field(default_factory=dict)

    def checked(self, wanted: Sequence[str], dim: int) -> tuple[Embedded, Floats]:
        """The items that have a usable vector, the others as errors; and the vectors, float32 [n, dim] of unit norm.

        Raises:
            GalleryError: unless there is one vector of `dim` values for each item, and all are items of `wanted`.
        """
        rows = np.asarray(self.vectors) if self.ids else np.empty((0, dim), np.float32)
        if rows.ndim > 0 and len(rows) != len(self.ids):
            raise GalleryError(f"expected one vector for each of {len(self.ids)} items, found {len(rows)}")
        if len(set(self.ids)) != len(self.ids) or not set(self.ids) <= set(wanted):
            raise GalleryError("the embedder returned a duplicate item, or one that was not requested")
        if rows.ndim == 2 and rows.dtype.kind == "f":  # else `unit_rows` refuses them
            good = np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
        else:
            good = np.ones(len(self.ids), bool)
        ids = [name for name, fine in zip(self.ids, good, strict=True) if fine]
        bad = {name: UNUSABLE for name, fine in zip(self.ids, good, strict=True) if not fine}
        vectors = unit_rows(rows if good.all() else rows[good], dim, "new vectors")
        return Embedded(ids, vectors, {**self.errors, **bad}), vectors


@runtime_checkable
class Embedder(Protocol):
    """Turns items into vectors of one model."""

    @property
    def fingerprint(self) -> str:
        """Of the model."""

    def embed(self, batches: Iterable[list[str]]) -> Iterator[Embedded]:
        """One result for each batch of item ids, in their order; it may read ahead."""
