"""Tiny runs of vectors and of text, beside the images' ones of all tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nobackfill.files import atomic_folder
from nobackfill.maps.basis import closed_basis
from nobackfill.maps.folders import basis_encoder, map_encoder, save_encoder
from nobackfill.maps.linear import ridge
from nobackfill.maps.moments import moments
from nobackfill.models import runfolder
from nobackfill.models.spec import named_prefix

NEW, OLD = 12, 7


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Vectors of the new model, float32 [n, 12], of all norms."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, NEW)) * 10 ** random.uniform(-2, 2, (count, 1))
    return rows.astype(np.float32)


@pytest.fixture(scope="session")
def vector_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A linear map of 12 values to 7, and a basis of BT² with a net beside it: 12 + 3 values."""
    root = tmp_path_factory.mktemp("fits")
    new = vectors(300)
    turn = np.random.default_rng(1).standard_normal((NEW, OLD))
    pairs, old = moments(new, (new @ turn).astype(np.float32)), named_prefix("old", OLD)
    linear = ridge(pairs, [0.1])[0]
    encoders = {
        "map": map_encoder("map", linear, old),
        "bt2": basis_encoder("bt2_vectors", closed_basis(pairs, linear, 3), 2.0, old, hidden=8),
    }
    for name, encoder in encoders.items():
        save_encoder(encoder, root / name, {})
    return {name: root / name for name in encoders}


@pytest.fixture(scope="session")
def clip_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both towers of a CLIP with random weights: `text` and `image`."""
    pytest.importorskip("transformers")
    from tests.models.test_clip import write_clip

    from nobackfill.interop.import_clip import import_tower

    root = tmp_path_factory.mktemp("clip")
    write_clip(root)
    for tower in ("text", "image"):
        with atomic_folder(root / tower) as working:
            runfolder.save(import_tower(root, tower), working)
    return {tower: root / tower for tower in ("text", "image")}


@pytest.fixture(scope="session")
def text_run(clip_runs: dict[str, Path]) -> Path:
    """A run of texts."""
    return clip_runs["text"]
