"""Labelled images in, (index, view, label) out: digits, CIFAR-100 in four layouts, image folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from nobackfill.config import DataConfig
from nobackfill.data.captions import with_captions
from nobackfill.data.cifar100 import load_cifar100
from nobackfill.data.digits import load_digits
from nobackfill.data.folder import load_folder
from nobackfill.data.imageset import ImageSet, choose_classes
from nobackfill.data.preprocessing import Preprocessing, VectorPreprocessing
from nobackfill.data.screening import leave_out_unreadable
from nobackfill.data.vectors import load_vectors
from nobackfill.errors import DataError

Split = Literal["train", "test"]

DATASETS: dict[str, Callable[[Path, Split], ImageSet]] = {
    "digits": load_digits,
    "cifar100": load_cifar100,
    "imagenet": load_folder,
    "folder": load_folder,
}

# Training images and classes where they are known without reading anything, for estimates.
SIZES: dict[str, tuple[int, int]] = {"digits": (1198, 10), "cifar100": (50_000, 100), "imagenet": (1_281_167, 1000)}


def load_split(data: DataConfig, split: Split) -> ImageSet:
    """All images of one split, every class; labels are class numbers 0 … classes−1.

    With `data.on_bad_image: skip`, files that do not decode are left out and listed in `skipped`.

    Raises:
        DataError: naming the folder or file that is missing or unusable.
    """
    if data.root is None and data.name not in ("digits", "vectors"):
        raise DataError(f"data.root is missing: {data.name!r} needs the folder or archive that holds it")
    if data.root is not None and data.name in ("digits", "vectors"):
        why = "comes with scikit-learn and takes" if data.name == "digits" else "takes"
        raise DataError(f"data.root: {data.root}: {data.name!r} {why} no folder; leave it out")
    if data.name == "vectors" and split == "test" and not data.holdout:
        raise DataError("vectors have no test split; hold some out by data.holdout")
    for key, value in (
        ("vectors", data.vectors),
        ("old_vectors", data.old_vectors),
        ("labels", data.labels),
        ("rows", data.rows),
    ):
        if value is not None and data.name != "vectors":
            raise DataError(f"data.{key}: {value}: only the data set 'vectors' has a use for it; leave it out")
    images = (
        load_vectors(data)
        if data.name == "vectors"
        else DATASETS[data.name](data.root or Path(), "train" if data.holdout else split)
    )
    if data.holdout:
        images = _held_out(images, data.holdout, split)
    if data.captions is not None:
        images = with_captions(images, data.captions, data.root or Path())
    return leave_out_unreadable(images, data.workers) if data.on_bad_image == "skip" else images


def _held_out(images: ImageSet, count: int, split: Split) -> ImageSet:
    if count >= len(images):
        raise DataError(f"data.holdout: {count} leaves nothing of the {len(images)} training images of {images.origin}")
    order = np.random.default_rng(1).permutation(len(images))
    return images.take(np.sort(order[:count] if split == "test" else order[count:]))


__all__ = [
    "DATASETS",
    "SIZES",
    "ImageSet",
    "Preprocessing",
    "Split",
    "VectorPreprocessing",
    "choose_classes",
    "load_split",
]
