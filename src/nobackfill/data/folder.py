"""Images on disk, one folder a class: `training` or `train`, and `validation`, `val` or `test`."""

from __future__ import annotations

import os
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
        files = image_files(folder / name)
        paths += files
        labels += [number] * len(files)
    if not paths:
        raise DataError(
            f"{folder}: no image files in its class folders; known extensions: {' '.join(sorted(SUFFIXES))}"
        )
    return ImageSamples(paths, np.asarray(labels, dtype=np.int64), tuple(classes), str(folder))


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder at any depth, sorted by path.

    Names that begin with a dot are left out, with all that is in them: notebooks and file managers leave them behind.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(place, name) for name in files if name[0] != "." and Path(name).suffix.lower() in SUFFIXES]
    return sorted(found)


def _split_folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()), None)
