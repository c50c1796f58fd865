"""Vectors, labels and texts that come as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nobackfill.arrays import Array
    from nobackfill.data import Samples
    from nobackfill.evaluation.relevance import Relevant
    from nobackfill.models import Encoder


def read_array(path: Path, option: str) -> Array:
    """A .npy file, mapped into memory; raises `DataError` naming the option."""
    from nobackfill.files import read_npy

    return read_npy(path, f"{option} {path}")


def read_relevant(path: Path, option: str) -> Relevant:
    """Matches of each query: a boolean .npy table, or a JSON list of lists of gallery positions."""
    from nobackfill.errors import ConfigError, one_line
    from nobackfill.untrusted import read_json

    if path.suffix == ".npy":
        return read_array(path, option)
    try:
        lists = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{option} {path}: cannot be read as JSON: {one_line(error, 120)}") from error
    if not isinstance(lists, list) or not all(isinstance(each, list) for each in lists):
        raise ConfigError(f"{option} {path}: expected a list of lists of gallery positions, one per query")
    return lists


def read_texts(path: Path, count: int, option: str) -> list[str]:
    """A text file with a line an item."""
    from nobackfill.errors import ConfigError, one_line
    from nobackfill.files import lines_of, read_text

    try:
        text = read_text(path)
        found = text.count("\n")
        lines = lines_of(text) if found <= count else []  # each takes fifty bytes: only where they can be right
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option} {path}: cannot be read as text: {one_line(error)}") from error
    if len(lines) != count:
        raise ConfigError(
            f"{option} {path}: expected one line for each of the {count} items, found {len(lines) or found}"
        )
    return lines


def items_of(path: Path, encoder: Encoder) -> Samples:
    """`--vectors` as a data set of one nameless class, for a model that takes vectors."""
    import numpy as np

    from nobackfill.data import VectorSamples
    from nobackfill.data.vectors import read_rows
    from nobackfill.errors import ConfigError

    if encoder.spec.modality != "vector":
        raise ConfigError(f"--vectors {path}: this run embeds {encoder.spec.modality}s; give --data")
    rows = read_rows(path)
    return VectorSamples(rows, np.zeros(len(rows), np.int64), ("",), str(path))


def as_labels(array: Array | None) -> NDArray[np.int64] | None:
    """Labels in memory, for pictures and lines by class; what is wrong with them `retrieval_metrics` says."""
    import numpy as np

    return None if array is None or array.dtype.kind not in "iu" else np.asarray(array).astype(np.int64)
