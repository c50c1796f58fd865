"""Files of unknown origin, read within the memory that their size explains: ten times the file and 200 MB.

A text of brackets or a column of one value, a billion times, is small on disk and vast in memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.errors import DataError
from nobackfill.files import TEXT_BYTES, read_text

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

FREE_BRACKETS = 700_000  # lists and objects of any JSON text, each up to 200 bytes in memory
BYTES_PER_BRACKET = 40  # of text, that each further one must come with
FREE_BYTES = 100 * 2**20  # of decoded columns, of any parquet file
TIMES = 5  # decoded columns may be so many times as large as their file, and that again as Python's objects
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}  # others take eight bytes, or as many for their place


def read_json(path: Path, limit: int = TEXT_BYTES) -> object:
    """The value of a JSON file.

    Raises:
        OSError: as `read_text`.
        ValueError: for what is no JSON or not UTF-8, and for more lists and objects than a text of its size can need.
        RecursionError: for values that are nested too deeply.
    """
    return parse_json(read_text(path, limit))


def read_object(path: Path, limit: int = TEXT_BYTES) -> dict[str, object]:
    """As `read_json`, of a file that holds an object; `ValueError` for another value."""
    tree = read_json(path, limit)
    if not isinstance(tree, dict):
        raise ValueError(f"expected an object, found {type(tree).__name__}")
    return tree


def parse_json(text: str) -> object:
    """As `read_json`."""
    brackets = text.count("[") + text.count("{")
    if brackets > FREE_BRACKETS + len(text) // BYTES_PER_BRACKET:
        raise ValueError(f"{brackets} lists and objects in {len(text)} characters, too many to be read")
    return json.loads(text)


def check_decoded(path: Path, file: parquet.ParquetFile, columns: list[str] | None = None) -> None:
    """Raises `DataError` for a parquet file whose columns (or the chosen ones) say that they decode to far more."""
    most = TIMES * path.stat().st_size + FREE_BYTES
    decoded = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            if columns is None or column.path_in_schema.split(".")[0] in columns:
                width = WIDTHS.get(column.physical_type, 8)
                decoded += max(column.total_uncompressed_size, width * column.num_values)
    if decoded > most:
        raise DataError(
            f"{path}: {path.stat().st_size} bytes that decode to {decoded} or more, expected at most {most}; "
            "write it without compression if it is what you meant"
        )


def cells(column: pa.ChunkedArray) -> list[object]:
    """A column as Python's objects, where texts that are equal are one object: labels repeat."""
    import pyarrow as pa

    texts = (pa.types.is_string, pa.types.is_large_string)
    if pa.types.is_dictionary(column.type):
        values = column.type.value_type
        encoded = column
    else:
        values = column.type
        encoded = column.dictionary_encode() if any(is_text(values) for is_text in texts) else column
    if not any(is_text(values) for is_text in texts):
        return list(column.to_pylist())
    found: list[object] = []
    for chunk in encoded.chunks:
        known = np.empty(len(chunk.dictionary) + 1, object)
        known[:-1] = chunk.dictionary.to_pylist()
        known[-1] = None
        places = chunk.indices.fill_null(len(chunk.dictionary)).to_numpy(zero_copy_only=False)
        found.extend(known[places])
    return found
