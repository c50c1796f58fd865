"""Pairs of vectors of two made-up models that see the same items, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

OLD, NEW, CLASSES = 10, 14, 12


def items(count: int, seed: int = 0, noise: tuple[float, float] = (2.0, 0.3)) -> tuple[np.ndarray, ...]:
    """Old vectors [n, 10], new vectors [n, 14] of a better model, labels [n]."""
    world, random = np.random.default_rng(7), np.random.default_rng(seed + 100)
    centres, to_old, to_new = (world.standard_normal(shape) for shape in ((CLASSES, 8), (8, OLD), (8, NEW)))
    labels = random.integers(0, CLASSES, count)
    content = centres[labels] + 0.7 * random.standard_normal((count, 8))
    old = content @ to_old + noise[0] * random.standard_normal((count, OLD))
    new = content @ to_new + noise[1] * random.standard_normal((count, NEW))
    return old.astype(np.float32), new.astype(np.float32), labels


def write(folder: Path, **arrays: np.ndarray) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: folder / f"{name}.npy" for name in arrays}
