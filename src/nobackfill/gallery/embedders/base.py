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


@dataclass(frozen=True)
class Embedded:
    """What an embedder makes of some items.

    Attributes:
        ids: of the items that were embedded.
        vectors: theirs, floats [n, dim] of any norm but zero.
        errors: id of each other item → why it was not.
    """

    ids: Sequence[str]
    vectors: ArrayLike
    errors: Mapping[str, str] = field(default_factory=dict)

    def rows(self, wanted: Sequence[str], dim: int) -> Floats:
        """The vectors, float32 [n, dim] of unit norm; raises `GalleryError` unless they are of items of `wanted`."""
        rows = unit_rows(self.vectors, dim, "new vectors") if self.ids else np.empty((0, dim), np.float32)
        if len(rows) != len(self.ids):
            raise GalleryError(f"expected one vector for each of {len(self.ids)} items, found {len(rows)}")
        if len(set(self.ids)) != len(self.ids) or not set(self.ids) <= set(wanted):
            raise GalleryError("the embedder returned a duplicate item, or one that was not requested")
        return rows


@runtime_checkable
class Embedder(Protocol):
    """Turns items into vectors of one model."""

    @property
    def fingerprint(self) -> str:
        """Of the model."""

    def embed(self, batches: Iterable[list[str]]) -> Iterator[Embedded]:
        """One result for each batch of item ids, in their order; it may read ahead."""
