"""The handwritten digits that come with scikit-learn: 1,797 images of 8×8 pixels, ten classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from nobackfill.data.samples import ImageSamples


def load_digits(root: Path, split: Literal["train", "test"]) -> ImageSamples:  # noqa: ARG001 (they need no folder)
    """Grey values 0–16 as RGB uint8 [n, 8, 8, 3]; a third of each class, always the same, is the test split."""
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    digits = load()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=1 / 3, stratify=labels, random_state=0)
    chosen = np.sort(train if split == "train" else test)
    return ImageSamples(pixels[chosen], labels[chosen], tuple("0123456789"), "scikit-learn's digits")
