"""A plain function as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from numpy.typing import ArrayLike

from nobackfill.errors import GalleryError
from nobackfill.gallery.embedders.base import Embedded, Embedder

Function = Callable[[list[str]], Embedded | ArrayLike]
"""Item ids to vectors [n, dim], one for each id; or to `Embedded`, if it cannot embed all of them."""


class FunctionEmbedder:
    """Calls a function for each batch.

    Args:
        function: see `Function`.
        fingerprint: of the model whose vectors it returns.
    """

    def __init__(self, function: Function, fingerprint: str) -> None:
        self.function, self.fingerprint = function, fingerprint

    def embed(self, batches: Iterable[list[str]]) -> Iterator[Embedded]:
        """One call for each batch."""
        for ids in batches:
            made = self.function(ids)
            yield made if isinstance(made, Embedded) else Embedded(ids, made)


def as_embedder(embed: Embedder | Function, fingerprint: str | None) -> Embedder:
    """An embedder of this model.

    Args:
        embed: an embedder, or a function that becomes one.
        fingerprint: of the model; None: the embedder says so itself, which a function cannot.

    Raises:
        GalleryError: if they do not go together.
    """
    if not isinstance(embed, Embedder):
        if fingerprint is None:
            raise GalleryError("the model of a function is unknown: give its fingerprint as well")
        return FunctionEmbedder(embed, fingerprint)
    if fingerprint is not None and embed.fingerprint != fingerprint:
        raise GalleryError(
            f"the embedder's model has fingerprint {embed.fingerprint[:12]}…, expected {fingerprint[:12]}…"
        )
    return embed
