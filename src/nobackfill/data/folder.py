"""Images on disk, one folder a class: `training` or `train`, and `validation`, `val` or `test`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from nobackfill.data.samples import ImageSamples
from nobackfill.errors import DataError

SPLIT_FOLDERS = {"train": ("training", "train"), "test": ("validation", "val", "test")}
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def load_folder(root: Path, split: Literal["train", "test"]) -> ImageSamples:
    """The image files of one split, sorted by class and name; they are decoded when they are needed.

    The classes are the sorted union over both splits, so a class keeps its number in each of them.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one with 'training' and 'validation' inside")
    # Names that begin with a dot are what notebooks and file managers leave behind.
    folders = {name: _split_folder(root, name) for name in SPLIT_FOLDERS}
    folder = folders[split]
    if folder is None:
        raise DataError(f"{root}: expected a folder named {' or '.join(SPLIT_FOLDERS[split])} in it")
    classes = sorted(
        {
            child.name
            for each in folders.values()
            if each
            for child in each.iterdir()
            if child.is_dir() and child.name[0] != "."
        }
    )
    if not classes:
        raise DataError(f"{folder}: no class folders in it; expected {folder.name}/<class>/<image>")
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        files = sorted(
            path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES and path.name[0] != "."
        )
        paths += files
        labels += [number] * len(files)
    if not paths:
        raise DataError(
            f"{folder}: no image files in its class folders; known extensions: {' '.join(sorted(SUFFIXES))}"
        )
    return ImageSamples(paths, np.asarray(labels, dtype=np.int64), tuple(classes), str(folder))


def _split_folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()), None)
