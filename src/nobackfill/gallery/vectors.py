"""Vectors as galleries hold them: float32 of unit norm."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.arrays import unit
from nobackfill.errors import DataError, GalleryError
from nobackfill.gallery.stores.base import Floats, Store


def unit_rows(vectors: ArrayLike, dim: int, what: str) -> Floats:
    """Vectors [n, dim] as float32 of unit norm; raises `GalleryError` naming the first row that is not usable."""
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] != dim or array.dtype.kind != "f":
        raise GalleryError(f"{what}: expected floats [n, {dim}], found {array.dtype} {list(array.shape)}")
    try:
        return unit(array, what)
    except DataError as error:
        raise GalleryError(str(error)) from None


def vectors_of(store: Store, ids: list[str], generation: int) -> tuple[list[str], Floats]:
    """Those of these items whose vectors are of this generation, in the order asked for; float32 [n, dim]."""
    vector_of: dict[str, Floats] = {}
    for items in store.fetch(ids):
        if items.generation == generation:
            vector_of.update(zip(items.ids, items.vectors, strict=True))
    known = [name for name in ids if name in vector_of]
    return known, np.stack([vector_of[name] for name in known]) if known else np.empty((0, 0), np.float32)
