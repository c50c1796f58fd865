"""Columns of CSV, TSV, JSON lines and parquet files, checked: UTF-8, bounded in size, no empty texts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nobackfill.errors import DataError, nearest, one_line
from nobackfill.files import require_regular
from nobackfill.untrusted import cells, check_decoded, parse_json

MAX_BYTES = 2**31
"""Of a file."""
HEADER_BYTES = 2**20

Columns = dict[str, list[object]]


def read_columns(path: Path, wanted: Iterable[str]) -> Columns:
    """The wanted columns of a file, cell by cell: strings of CSV, any JSON or parquet value otherwise.

    Args:
        path: `.csv` or `.tsv` with a header, `.jsonl` or `.ndjson`, `.parquet`.
        wanted: names of columns.

    Raises:
        DataError: for a file of another kind, too large, not UTF-8 or damaged; for a column that is missing, with the
            nearest name.
    """
    names = list(dict.fromkeys(wanted))
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown file type {path.suffix!r}; expected {', '.join(READERS)}")
    try:
        require_regular(path)
        _check_size(path, path.stat().st_size)
        columns = reader(path, names)
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    if not next(iter(columns.values())):
        raise DataError(f"{path}: no rows in it")
    return columns


def texts_in(path: Path, column: str, cells: Sequence[object]) -> list[str]:
    """The cells of a column as texts; raises `DataError` for one that is empty or no string, with its row (from 1)."""
    for row, cell in enumerate(cells, start=1):
        check_text(path, column, row, cell)
    return [str(cell) for cell in cells]


def check_text(path: Path, column: str, row: int, cell: object) -> str:
    """One cell as a text; raises `DataError` as `texts_in`."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise DataError(f"{path}: row {row}: column {column!r} is empty; expected a text: fill it in or remove the row")
    if not isinstance(cell, str):
        raise DataError(f"{path}: row {row}: column {column!r} is {type(cell).__name__}, expected a text")
    try:
        cell.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{path}: row {row}: column {column!r}: half a surrogate pair, which is no Unicode text"
        ) from None
    return cell


def labels_in(path: Path, column: str, cells: Sequence[object]) -> list[str]:
    """The cells of a column as names of classes; raises `DataError` for one that is neither a text nor an integer."""
    labels = [str(cell) if isinstance(cell, int) and not isinstance(cell, bool) else cell for cell in cells]
    return texts_in(path, column, labels)


def _csv(path: Path, names: list[str]) -> Columns:
    import pyarrow as pa
    from pyarrow import csv as arrow

    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            header = next(csv.reader([file.readline(HEADER_BYTES)], delimiter=delimiter), [])
        except csv.Error as error:  # Python 3.10 takes no NUL
            raise DataError(f"{path}: not valid CSV: {one_line(error)}") from error
    _check_columns(path, names, header)
    try:
        table = arrow.read_csv(
            path,
            # A row must fit into a block; a reader with one thread keeps the order of its messages.
            arrow.ReadOptions(use_threads=False, block_size=2**26),
            arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            arrow.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _not_utf8(path) from error
        raise DataError(f"{path}: not valid CSV: {one_line(error)}") from error
    return {name: cells(table.column(name)) for name in names}


def _json_lines(path: Path, names: list[str]) -> Columns:
    columns: Columns = {name: [] for name in names}
    with path.open(encoding="utf-8-sig") as file:
        for row, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = parse_json(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}: row {row}: not valid JSON: {one_line(error)}") from error
            if not isinstance(record, dict):
                raise DataError(f"{path}: row {row}: expected an object, found {type(record).__name__}")
            _check_columns(path, names, [*record], f"row {row}: ")
            for name in names:
                columns[name].append(record[name])
    return columns


def _parquet(path: Path, names: list[str]) -> Columns:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, names, file.schema_arrow.names)
            check_decoded(path, file, names)
            texts = [name for name in names if file.schema_arrow.field(name).type in (pa.string(), pa.large_string())]
        table = parquet.read_table(path, columns=names, read_dictionary=texts)
        return {name: cells(table.column(name)) for name in names}
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except pa.ArrowException as error:
        raise DataError(f"{path}: not readable as parquet: {one_line(error)}") from error


READERS: dict[str, Callable[[Path, list[str]], Columns]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}


def _check_columns(path: Path, names: list[str], found: list[str], where: str = "") -> None:
    for name in names:
        if name not in found:
            raise DataError(f"{path}: {where}no column {name!r}; {nearest(name, found)}")
        if found.count(name) > 1:
            raise DataError(f"{path}: {where}has {found.count(name)} columns named {name!r}, expected one")


def _check_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size} bytes, expected at most {MAX_BYTES}; split the file")


def _not_utf8(path: Path) -> DataError:
    return DataError(f"{path}: not valid UTF-8; convert the file to UTF-8")
