"""Archives as the class folders that the BT² research code reads: training/<class>/*.png, validation/<class>/*.png."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from nobackfill.data.cifar100 import load_cifar100
from nobackfill.errors import DataError
from nobackfill.files import atomic_folder
from nobackfill.progress import track

# As published beside the archives: the python and the binary version.
CIFAR100_MD5 = ("eb9058c3a382ffc7106e4002c42a8d85", "03b5dce01913d631647c71ecec9e9cb8")


def prepare_cifar100(source: Path, out: Path, md5: str | None = None) -> dict[str, int]:
    """Write CIFAR-100 as class folders of lossless PNG files; all of them, or nothing.

    Args:
        source: an archive, whose MD5 is checked, or a folder in any layout that `load_cifar100` reads.
        out: folder to write, absent or empty.
        md5: expected instead of the published sums.

    Returns:
        Number of images by split.
    """
    if source.is_file():
        digest = hashlib.md5(usedforsecurity=False)
        with source.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        md5_of_source = digest.hexdigest()
        expected = (md5.lower(),) if md5 else CIFAR100_MD5
        if md5_of_source not in expected:
            raise DataError(
                f"{source}: MD5 {md5_of_source}, expected {' or '.join(expected)}; download the archive again"
            )
    elif md5:
        raise DataError(f"{source}: --md5 needs an archive, found {'a folder' if source.is_dir() else 'nothing'}")
    sets = {"training": load_cifar100(source, "train"), "validation": load_cifar100(source, "test")}
    with atomic_folder(out) as working:
        for split, images in sets.items():
            if not isinstance(images.images, np.ndarray):
                raise DataError(f"{source}: already contains class folders")
            names = [_folder_name(name) for name in images.class_names]
            for name in names:
                (working / split / name).mkdir(parents=True)
            pairs = enumerate(zip(images.images, images.labels, strict=True))
            for number, (pixels, label) in track(pairs, f"writing {split}", len(images)):
                Image.fromarray(pixels).save(working / split / names[label] / f"{number:05d}.png")
    return {split: len(images) for split, images in sets.items()}


def _folder_name(name: str) -> str:
    """A class name of an archive is a stranger's text: it may name a folder, not a way out of it."""
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
        raise DataError(f"class name {name!r} cannot be the name of a folder")
    return name
