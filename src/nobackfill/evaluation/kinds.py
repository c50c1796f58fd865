"""The kinds of ways to search an old gallery with a new model: which queries each needs, and what it does to items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Queries = Literal["new", "old + new"]
GalleryState = Literal["untouched", "mapped"]


@dataclass(frozen=True)
class Kind:
    """What a way of searching asks of an operator.

    Attributes:
        queries: models that must embed every query.
        gallery: `untouched`, or `mapped`: every stored vector is rewritten (from itself; nothing is re-embedded).
    """

    queries: Queries
    gallery: GalleryState

    @property
    def searched(self) -> str:
        """Query/gallery, as the tables show it."""
        return f"{self.queries}/{'old' if self.gallery == 'untouched' else 'mapped'}"

    @property
    def words(self) -> str:
        """What it needs, as a sentence without its full stop."""
        models = "both models embed every query" if self.queries == "old + new" else "the new model embeds queries"
        items = "the gallery stays as it is" if self.gallery == "untouched" else "every stored vector is rewritten"
        return f"{models}; {items}"


UNTOUCHED, MAPPED, BOTH = Kind("new", "untouched"), Kind("new", "mapped"), Kind("old + new", "untouched")
KINDS = (UNTOUCHED, MAPPED, BOTH)
