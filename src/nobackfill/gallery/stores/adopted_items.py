"""Items of an adopted store, which belong to the application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.base import ItemBatch, Payload, Store


class AdoptedItems(Store):
    """Refuses to add, change and remove items; a store of adopted items inherits it.

    Attributes:
        whose: what the items are, for the message.
    """

    whose: ClassVar[str]

    def drop(self, *, leave_new: bool = False) -> None:
        """Take away what the gallery made; with `leave_new` the newest generation's vectors stay."""
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
