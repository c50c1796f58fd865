"""A model of texts that was not trained here as an embedder: a SentenceTransformer folder or a Python function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from nobackfill.gallery.embedders.base import Embedded
from nobackfill.gallery.lineage import Generation

if TYPE_CHECKING:
    from nobackfill.models.sentence_encoder import TextFunction


class SentenceEmbedder:
    """Embeds the texts of items, as documents; a text that has no usable vector is an error of its item.

    Args:
        encoder: of `load_sentence_encoder`, or a `FunctionEncoder`.
        texts: of the items.
        ids: of the texts; None: their positions, "0", "1", ….

    Attributes:
        generation: of the model; `fingerprint` is its.
    """

    def __init__(self, encoder: TextFunction, texts: Sequence[str], ids: Sequence[str] | None = None) -> None:
        self.encoder, self.generation = encoder, Generation.of(encoder.spec)
        self.fingerprint: str = self.generation.fingerprint
        names = [str(position) for position in range(len(texts))] if ids is None else ids
        self.text_of: dict[str, str] = dict(zip(names, texts, strict=True))

    def embed(self, batches: Iterable[list[str]]) -> Iterator[Embedded]:
        """One result for each batch of item ids, in their order."""
        for ids in batches:
            errors = {name: fault for name in ids if (fault := self._fault(name))}
            known = [name for name in ids if name not in errors]
            rows = self.encoder.rows([self.text_of[name] for name in known], role="document")
            yield Embedded(known, rows, errors)

    def _fault(self, name: str) -> str:
        if name not in self.text_of:
            return "not in the data"
        text = self.text_of[name]
        if not isinstance(text, str):
            return f"expected a text, found {type(text).__name__}"
        return "" if text.strip() else "an empty text"
