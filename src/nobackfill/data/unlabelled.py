"""What galleries are filled with, which needs no classes: a folder of images at any depth, a column of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nobackfill.data.folder import SUFFIXES, image_files
from nobackfill.data.samples import ImageSamples, TextSamples
from nobackfill.data.text_files import labels_in, read_columns, texts_in
from nobackfill.data.texts import UNLABELLED
from nobackfill.errors import DataError


def load_image_files(root: Path) -> ImageSamples:
    """The image files of a folder and of those in it, sorted by path; names that begin with a dot are left out.

    Raises:
        DataError: if there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one with images in it")
    paths = image_files(root)
    if not paths:
        raise DataError(f"{root}: no image files in it; known extensions: {' '.join(sorted(SUFFIXES))}")
    return ImageSamples(paths, np.zeros(len(paths), np.int64), (UNLABELLED,), str(root))


def load_text_column(path: Path, column: str, ids: str | None) -> tuple[list[str], TextSamples]:
    """The texts of a file and an id for each: that of a column, or (None) its position from 0.

    Args:
        path: CSV, TSV, JSON lines or parquet.
        column: that holds the texts.
        ids: column of unique ids, texts or integers.

    Raises:
        DataError: for a file or column that is missing or damaged, a text or id that is empty, an id that comes twice.
    """
    columns = read_columns(path, [column, *([] if ids is None else [ids])])
    texts = texts_in(path, column, columns[column])
    names = list(map(str, range(len(texts)))) if ids is None else labels_in(path, ids, columns[ids])
    first: dict[str, int] = {}
    for row, name in enumerate(names, start=1):
        if first.setdefault(name, row) != row:
            raise DataError(
                f"{path}: rows {first[name]} and {row} have the same {ids!r}, {name!r}; expected unique ids"
            )
    return names, TextSamples(tuple(texts), np.zeros(len(texts), np.int64), (UNLABELLED,), str(path))
