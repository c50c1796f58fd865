"""Texts of a gallery's items, embedded by a model from elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nobackfill.gallery.embedders import Embedder, SentenceEmbedder
from nobackfill.models.sentence_encoder import FunctionEncoder


def counts(texts: list[str]) -> list[list[float]]:
    return [[text.count("a"), text.count("b")] for text in texts]


def test_each_item_has_a_vector_or_a_reason() -> None:
    texts: list[Any] = ["ab", " ", "aa", "xyz", 7]
    embedder = SentenceEmbedder(FunctionEncoder(lambda each: np.add(counts(each), 0.0), "counts"), texts, list("pqrst"))
    assert isinstance(embedder, Embedder)
    assert (embedder.fingerprint, embedder.generation.dim) == ("name:counts", 2)
    first, second, none = embedder.embed([["r", "q", "p"], ["s", "t", "u"], []])
    assert list(first.ids) == ["r", "p"]
    np.testing.assert_array_equal(first.vectors, [[2, 0], [1, 1]])
    assert first.errors == {"q": "an empty text"}
    usable, rows = second.checked(["s", "t", "u"], 2)
    assert not usable.ids
    assert rows.shape == (0, 2)
    assert usable.errors == {
        "s": "its vector is zero or not finite",
        "t": "expected a text, found int",
        "u": "not in the data",
    }
    assert not none.ids
    with pytest.raises(ValueError, match="zip"):
        SentenceEmbedder(embedder.encoder, ["one"], ["p", "q"])
