"""Vectors that are there already as an embedder: rows of an array, looked up by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.gallery.embedders.base import Embedded
from nobackfill.gallery.writing import check_ids


class ArrayEmbedder:
    """Looks items up.

    Args:
        ids: of the rows.
        rows: floats [n, dim], also of a memory-mapped file.
        fingerprint: of the model whose vectors they are (after `encode`, if given).
        encode: what makes vectors of some of the rows, where they are not the vectors themselves.

    Raises:
        GalleryError: for an id that comes twice.
    """

    def __init__(
        self,
        ids: Sequence[str],
        rows: NDArray[np.floating],
        fingerprint: str,
        encode: Callable[[NDArray[np.floating]], ArrayLike] | None = None,
    ) -> None:
        self.rows, self.fingerprint, self.encode = rows, fingerprint, encode
        check_ids(ids)
        self.row_of: dict[str, int] = {name: row for row, name in enumerate(ids)}

    def embed(self, batches: Iterable[list[str]]) -> Iterator[Embedded]:
        """The rows of each batch; an item that has none is an error."""
        for ids in batches:
            known = [name for name in ids if name in self.row_of]
            rows = self.rows[[self.row_of[name] for name in known]]
            errors = {name: "not among the ids" for name in ids if name not in self.row_of}
            yield Embedded(known, self.encode(rows) if self.encode else rows, errors)
