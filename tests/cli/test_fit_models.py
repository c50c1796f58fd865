"""`fit` by two models: each gets what it takes of the same items."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import nobackfill.models
from nobackfill.cli import fit_models
from nobackfill.data import TextSamples, VectorSamples
from nobackfill.models.spec import named_prefix


def test_the_old_model_gets_its_own_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = np.full((4, 3), 2.0), np.full((4, 3), 1.0)
    samples = VectorSamples(new, np.zeros(4, np.int64), ("",), "made", old_inputs=old)

    def loaded(name: str) -> Any:
        spaces = (named_prefix(name, 3), named_prefix(f"before {name}", 2))
        spec = SimpleNamespace(as_prefixes=lambda: spaces, modality="vector")
        return SimpleNamespace(spec=spec, encode=lambda items, workers: items)

    monkeypatch.setattr(fit_models, "open_data", lambda *_: (samples, 0))
    monkeypatch.setattr(nobackfill.models, "load", loaded)
    given = fit_models.embedded_pairs(Path("a"), Path("b"), "data", "train", tmp_path, alone=True)
    assert given is not None
    assert (np.load(given.pairs.old).max(), np.load(given.pairs.new).max()) == (1.0, 2.0)
    assert given.pairs.old_prefixes == (named_prefix("before a", 2),)  # what the old model's vectors search


def test_texts_are_embedded_as_the_items_of_a_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = TextSamples(("a", "b"), np.zeros(2, np.int64), ("",), "made")

    def loaded(name: str) -> Any:
        spec = SimpleNamespace(as_prefixes=lambda: (named_prefix(name, 3),), modality="text")
        return SimpleNamespace(spec=spec, encode=lambda texts, role: np.full((len(texts), 3), role == "document"))

    monkeypatch.setattr(fit_models, "open_data", lambda *_: (samples, 0))
    monkeypatch.setattr(nobackfill.models, "load", loaded)
    given = fit_models.embedded_pairs(Path("a"), Path("b"), "data", "train", tmp_path, alone=True)
    assert given is not None
    assert np.load(given.pairs.old).all()
    assert np.load(given.pairs.new).all()
