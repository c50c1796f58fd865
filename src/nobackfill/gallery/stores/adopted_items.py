"""Items of an adopted store, which belong to the application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.base import Floats, ItemBatch, Payload, Store

NORM_TOLERANCE = 1e-3


class AdoptedItems(Store):
    """Refuses to add, change and remove items; a store of adopted items inherits it.

    Attributes:
        whose: what the items are, for the message.
    """

    whose: ClassVar[str]

    def create(self) -> None:
        """Refused: adopting made it."""
        raise GalleryError(f"{self.url}: is adopted already; `gallery abandon` ends that")

    def drop(self, *, leave_new: bool = False) -> None:
        """Take away what the gallery made; with `leave_new` the vectors of the newest generation that has any stay."""
        raise NotImplementedError

    def undo_statements(self, *, leave_new: bool = False) -> list[str]:
        """What `drop` does, a line each."""
        raise NotImplementedError

    def insert(self, items: ItemBatch) -> None:
        """Refused."""
        raise self._not_ours()

    def upsert(self, items: ItemBatch) -> None:
        """Refused."""
        raise self._not_ours()

    def delete(self, ids: Sequence[str]) -> int:
        """Refused."""
        raise self._not_ours()

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        """Refused."""
        raise self._not_ours()

    def _not_ours(self) -> GalleryError:
        return GalleryError(
            f"{self.url}: {self.whose} belong to the application; add, change and remove them with its own client: "
            "what it does counts here at once"
        )


def unit(vectors: Sequence[Sequence[float]] | Floats, *, all_norms: bool = True) -> Floats:
    """At unit norm, float32 [n, dim]; zero vectors stay zero.

    Args:
        vectors: floats [n, dim].
        all_norms: False where the application's are not compared by their cosine: one of another norm than about 1
            stays as it is, so that verify names it.
    """
    rows = np.array(vectors, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not all_norms:
        norms[np.abs(norms - 1) > NORM_TOLERANCE] = 1
    rows /= np.where(norms == 0, 1, norms)
    return rows


def check_norms(url: str, vector: str, metric: str, rows: Sequence[Sequence[float]]) -> None:
    """Refuse vectors [n, d] of any norm where the metric is not the cosine: a gallery compares directions."""
    norms = np.linalg.norm(np.array(rows, np.float32), axis=1) if rows else np.ones(1)
    worst = float(norms[np.argmax(np.abs(norms - 1))])
    if abs(worst - 1) > NORM_TOLERANCE:
        raise GalleryError(f"{url}: {vector!r} is compared by {metric}, and a vector has norm {worst:.3f}; expected 1")
