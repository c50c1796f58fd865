"""Texts as token numbers: one flat array, cut to what the model reads, filled up only when a batch is made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nobackfill.data.preprocessing import Role, TextPreprocessing
from nobackfill.errors import RunError, one_line, require

CHUNK = 4096  # texts at a time


@dataclass(frozen=True)
class Tokens:
    """The tokens of n texts.

    Attributes:
        flat: int32, all of them, one text after the other.
        starts: int64 [n + 1], where each text begins; the last is the end.
        cut: bool [n], whether a text was longer than the model reads.
        padding: what fills a batch up.
    """

    flat: NDArray[np.int32]
    starts: NDArray[np.int64]
    cut: NDArray[np.bool_]
    padding: int

    def __len__(self) -> int:
        return len(self.cut)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 [n]."""
        return np.diff(self.starts)

    def take(self, index: NDArray[np.int64]) -> Tokens:
        """The texts at these positions, in this order."""
        lengths = self.lengths[index]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.starts[index] - starts[:-1], lengths) + np.arange(starts[-1])
        return Tokens(self.flat[source], starts, self.cut[index], self.padding)

    def batch(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """The texts at these positions as int64 [b, t], t ≥ 1 that of the longest."""
        lengths = self.lengths[index]
        columns = np.arange(max(1, int(lengths.max(initial=0))))
        there = columns < lengths[:, None]
        rows = np.full(there.shape, self.padding, np.int64)
        rows[there] = self.flat[(self.starts[index][:, None] + columns)[there]]
        return rows


class TextTokenizer:
    """A tokenizer with the settings of an encoder.

    Args:
        text: its JSON, as `tokenizers` reads it.
        settings: of the encoder.

    Raises:
        RunError: if it is not the encoder's tokenizer, or cannot be read.
        MissingPackageError: without the package that reads it.
    """

    def __init__(self, text: str, settings: TextPreprocessing) -> None:
        if tokenizer_digest(text) != settings.tokenizer:
            raise RunError("not the one used to make its vectors")
        require("tokenizers", what="a text model")
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # whatever a stranger's JSON makes of it
            raise RunError(one_line(error)) from error
        self.settings = settings
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings.max_tokens)

    def tokens(self, texts: Sequence[str], role: Role | None = None, prompt: str | None = None) -> Tokens:
        """Tokens of texts, each after the prompt given, or else that of its role."""
        prompt, left_out = self.settings.prompt_of(role) if prompt is None else prompt, self.settings.left_out
        parts: list[list[int]] = []
        cut: list[bool] = []
        for start in range(0, len(texts), CHUNK):
            some = [prompt + text for text in texts[start : start + CHUNK]]
            for found in self._tokenizer.encode_batch(some, add_special_tokens=self.settings.marks):
                parts.append([token for token in found.ids if token != left_out])
                cut.append(bool(found.overflowing))
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        flat = np.fromiter((token for part in parts for token in part), np.int32, int(starts[-1]))
        padding = -1 if self.settings.masked else self.settings.padding
        return Tokens(flat, starts, np.array(cut, np.bool_), padding)


def tokenizer_digest(text: str) -> str:
    """SHA-256 of a tokenizer's JSON."""
    return hashlib.sha256(text.encode()).hexdigest()
