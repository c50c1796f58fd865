"""How unsure a map is of each item's mapped vector: recorded in the gallery, read by `backfill --order uncertain`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.base import Store

PIECE = "uncertainty-{:06d}"
SIZE = 16_384  # items a document


def record(store: Store, batches: Iterable[tuple[list[str], ArrayLike]]) -> int:
    """Replace what is recorded; returns the number of items.

    Args:
        store: of the gallery.
        batches: ids and their uncertainties, floats [n], the higher the less sure.

    Raises:
        GalleryError: for lengths that differ, or values that are not finite; the record is then as it was before, or
            gone.
    """
    documents = 0
    for number, items in enumerate(_pieces(batches)):
        if number == 0:
            _forget(store)
        store.write(PIECE.format(number), json.dumps(items).encode())
        documents = number * SIZE + len(items)
    return documents


def read(store: Store) -> dict[str, float]:
    """Uncertainty by id; empty if nothing is recorded."""
    known: dict[str, float] = {}
    for number in count():
        data = store.read(PIECE.format(number))
        if data is None:
            return known
        known.update(json.loads(data))
    return known  # for type checkers


def _forget(store: Store) -> None:
    """Remove all documents, the last first, so that a kill leaves no gap behind which old ones hide."""
    numbers = []
    for number in count():
        if store.read(PIECE.format(number)) is None:
            break
        numbers.append(number)
    for number in reversed(numbers):
        store.write(PIECE.format(number), None)


def _pieces(batches: Iterable[tuple[list[str], ArrayLike]]) -> Iterable[dict[str, float]]:
    piece: dict[str, float] = {}
    for ids, values in batches:
        array = np.asarray(values, np.float64)
        if array.shape != (len(ids),) or not np.isfinite(array).all():
            raise GalleryError(
                f"uncertainties: expected one finite number for each of the {len(ids)} ids, found an array of shape "
                f"{list(array.shape)}" + ("" if np.isfinite(array).all() else " with values that are not finite")
            )
        for name, value in zip(ids, array.tolist(), strict=True):
            piece[name] = value
            if len(piece) == SIZE:
                yield piece
                piece = {}
    if piece:
        yield piece
