"""One caption an image, from a JSON file {image file: caption}."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nobackfill.data.samples import ImageSamples
from nobackfill.errors import DataError, one_line, shortened
from nobackfill.untrusted import read_json

MAX_BYTES = 2**30


def with_captions(images: ImageSamples, path: Path, root: Path) -> ImageSamples:
    """The set with a caption for each of its image files.

    Args:
        images: a set of files; sets that arrive as arrays have no names to look up.
        path: the JSON file. Its keys are the files' paths as they are opened, or relative to `root`.
        root: folder of the data set.

    Raises:
        DataError: if the file is not such a mapping, or an image has no caption (the first is named).
    """
    if isinstance(images.images, np.ndarray):
        raise DataError(f"data.captions: {images.origin} captions need image files, and this data set has none")
    captions = _read(path)
    chosen: list[str] = []
    missing: list[str] = []
    for item in images.images:
        file = Path(str(item))
        inside = file.relative_to(root).as_posix() if file.is_relative_to(root) else ""
        caption = captions.get(str(item), captions.get(inside))
        if caption is None:
            missing.append(inside or str(file))
        else:
            chosen.append(caption)
    if missing:
        raise DataError(f"{path}: no caption for {len(missing)} of {len(images)} images; the first is {missing[0]!r}")
    return replace(images, captions=tuple(chosen))


def _read(path: Path) -> dict[str, str]:
    try:
        content = read_json(path, MAX_BYTES)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping of image file to caption, found {type(content).__name__}")
    for key, caption in content.items():
        if not isinstance(caption, str) or not caption.strip():
            raise DataError(f"{path}: the caption of {shortened(key)} is {shortened(caption)}, expected a string")
    return content
