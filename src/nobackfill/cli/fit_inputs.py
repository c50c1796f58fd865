"""The arrays `nobackfill fit` works on, from .npy and .parquet files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import typer

from nobackfill.arrays import Array
from nobackfill.cli.vectors import read_relevant
from nobackfill.data.vectors import class_numbers, read_rows
from nobackfill.errors import ConfigError, DataError, one_line
from nobackfill.files import read_npy, require_regular, write_npy
from nobackfill.maps import Held, Pairs
from nobackfill.untrusted import check_decoded

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Given:
    """Pairs, and the ids of their rows where the files have some."""

    pairs: Pairs
    ids: list[str] | None = None


def read_pairs(
    old: Path | None,
    new: Path | None,
    pairs: Path | None,
    labels: Path | None,
    old_name: str | None,
    new_name: str | None,
    arrays: Path,
    side: Path | None = None,
) -> Given:
    """The pairs that the options name; those of parquet files are joined by id and written to .npy files in `arrays`.

    Raises:
        ConfigError, DataError: for options or files that do not go together.
    """
    if side is not None and (pairs is not None or (old is not None and old.suffix == ".parquet")):
        raise ConfigError("--side: goes with --old and --new as .npy files; rows of .parquet files are joined by id")
    if pairs is not None:
        if old is not None or new is not None or labels is not None:
            raise ConfigError("--pairs: already holds old, new and labels; leave --old, --new and --labels out")
        names = _names(old_name or "old", new_name or "new")
        table = _parquet(pairs)
        both = {side: _vectors(table, side, pairs) for side in ("old", "new")}
        ids = _ids(table, pairs) if "id" in table.column_names else None
        return Given(_written(arrays, both["old"], both["new"], _labels(table, pairs), names), ids)
    if old is None or new is None:
        raise ConfigError("fit: expected --old and --new, or --pairs; see nobackfill fit --help")
    names = _names(old_name or old.stem, new_name or new.stem)
    if (old.suffix == ".parquet") != (new.suffix == ".parquet"):
        raise ConfigError("--old and --new: expected two .npy files or two .parquet files")
    if old.suffix != ".parquet":
        return Given(Pairs(old, new, labels, names["old_name"], names["new_name"], side=side))
    return _joined(old, new, labels, names, arrays)


def _names(old: str, new: str) -> dict[str, str]:
    """The two models' names; raises `ConfigError` for what is no name, or twice the same."""
    for option, name in (("--old-name", old), ("--new-name", new)):
        if not name or ":" in name or any(mark.isspace() for mark in name):
            raise ConfigError(f"{option} {name!r}: expected a name without spaces or colons")
    if old == new:
        raise ConfigError(f"--old-name, --new-name: both are {old!r}; two models need two names")
    return {"old_name": old, "new_name": new}


def read_held(
    given: Given,
    test_old: Path | None,
    test_new: Path | None,
    test_labels: Path | None,
    query_old: Path | None,
    query_new: Path | None,
    relevant: Path | None,
    test_side: Path | None = None,
) -> tuple[Held | None, bool]:
    """What to judge by (None: a share of the pairs), and whether its gallery is the pairs themselves."""
    if (test_old is None) != (test_new is None):
        raise ConfigError("--test-old and --test-new: give both or neither")
    if (query_old is None) != (query_new is None) or (query_old is None) != (relevant is None):
        raise ConfigError("--query-old, --query-new and --relevant: give all three or none")
    if test_labels is not None and (test_old is None or relevant is not None):
        raise ConfigError("--test-labels: needs --test-old and --test-new, and excludes --relevant")
    if test_side is not None and (test_old is None or given.pairs.side is None):
        raise ConfigError("--test-side: needs --side, --test-old and --test-new")
    if test_old is None and query_old is None:
        return None, False
    gallery = (given.pairs.old, given.pairs.new) if test_old is None or test_new is None else (test_old, test_new)
    old, new = (read_rows(path) for path in gallery)
    if len(old) != len(new):
        raise DataError(f"{gallery[1]}: {len(new)} rows, but {gallery[0]} has {len(old)}")
    _check_sizes(given.pairs, old, new, gallery)
    # Without --test-old the gallery is the pairs, and has their side vectors.
    side_file = given.pairs.side if test_old is None else test_side
    side = None if side_file is None else read_rows(side_file)
    if side is not None and len(side) != len(old):
        raise DataError(f"{side_file}: {len(side)} rows, but {gallery[0]} has {len(old)}")
    if query_old is None or query_new is None or relevant is None:
        labels = None if test_labels is None else class_numbers(read_npy(test_labels), len(old), str(test_labels))
        return Held.of(old, new, labels, side), False
    old_queries, new_queries = read_rows(query_old), read_rows(query_new)
    if len(old_queries) != len(new_queries):
        raise DataError(f"{query_new}: {len(new_queries)} rows, but {query_old} has {len(old_queries)}")
    _check_sizes(given.pairs, old_queries, new_queries, (query_old, query_new))
    lists = read_relevant(relevant, "--relevant")
    if given.ids is not None and test_old is None and not isinstance(lists, np.ndarray):
        lists = _places(cast("list[list[object]]", lists), given.ids, relevant)
    return Held(old, new, old_queries, new_queries, None, lists, side=side), test_old is None


def _check_sizes(pairs: Pairs, old: Array, new: Array, paths: tuple[Path, Path]) -> None:
    for rows, path, fitted in ((old, paths[0], pairs.old), (new, paths[1], pairs.new)):
        wanted = read_rows(fitted).shape[1]
        if rows.shape[1] != wanted:
            raise DataError(f"{path}: {rows.shape[1]} values per row, but {fitted} has {wanted}")


def _joined(old: Path, new: Path, labels: Path | None, names: dict[str, str], arrays: Path) -> Given:
    if labels is not None:
        raise ConfigError("--labels: .parquet files hold labels in their column 'label'; leave it out")
    tables = {path: _parquet(path) for path in (old, new)}
    places = {path: {name: row for row, name in enumerate(_ids(table, path))} for path, table in tables.items()}
    common = [name for name in places[old] if name in places[new]]
    lost = sum(len(each) - len(common) for each in places.values())
    if not common:
        raise DataError(f"{new}: shares no id with {old}")
    if lost:
        typer.echo(f"items in only one of {old} and {new}: {lost}; pairs left: {len(common)}", err=True)
    rows = {path: np.array([places[path][name] for name in common]) for path in tables}
    vectors = {path: _vectors(table, "vector", path)[rows[path]] for path, table in tables.items()}
    every = {path: each for path, table in tables.items() if (each := _labels(table, path)) is not None}
    classes = {path: [each[row] for row in rows[path]] for path, each in every.items()}
    for name, one, other in zip(common, classes.get(old, ()), classes.get(new, ()), strict=False):
        if one != other:
            raise DataError(
                f"{new}: column 'label': id {name!r} has {other!r}, but {one!r} in {old}; correct it, or drop one"
            )
    known = next(iter(classes.values()), None)
    return Given(_written(arrays, vectors[old], vectors[new], known, names), common)


def _written(arrays: Path, old: Array, new: Array, labels: Sequence[object] | None, names: dict[str, str]) -> Pairs:
    paths = {}
    classes = None if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)
    for name, array in (("old", old), ("new", new), ("labels", classes)):
        if array is not None:
            paths[name] = write_npy(arrays / f"{name}.npy", array)
    return Pairs(paths["old"], paths["new"], paths.get("labels"), names["old_name"], names["new_name"])


def _parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        require_regular(path)
        with pq.ParquetFile(path) as file:
            check_decoded(path, file)
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {one_line(error)}") from error


def _ids(table: pa.Table, path: Path) -> list[str]:
    if "id" not in table.column_names:
        raise DataError(f"{path}: no column 'id' to join by; it has {', '.join(table.column_names)}")
    if table["id"].null_count:
        raise DataError(f"{path}: column 'id': {table['id'].null_count} of {len(table)} rows have none")
    ids = [str(name) for name in table["id"].to_pylist()]
    if len(set(ids)) < len(ids):
        raise DataError(f"{path}: duplicate id {Counter(ids).most_common(1)[0][0]!r}")
    return ids


def _vectors(table: pa.Table, column: str, path: Path) -> Array:
    if column not in table.column_names:
        raise DataError(f"{path}: no column {column!r}; it has {', '.join(table.column_names)}")
    values = table[column].combine_chunks()
    lists = hasattr(values, "flatten") and hasattr(values.type, "value_type")
    flat = values.flatten() if lists else None
    if flat is None or not len(values) or values.null_count or flat.null_count or not _of_one_length(values):
        raise DataError(f"{path}: column {column!r}: expected lists of floats, all of the same length")
    rows = flat.to_numpy(zero_copy_only=False)
    if rows.dtype.kind != "f":
        raise DataError(f"{path}: column {column!r}: expected lists of floats, all of the same length")
    table_rows: Array = rows.reshape(len(values), -1)
    return table_rows


def _of_one_length(lists: pa.Array) -> bool:
    import pyarrow.compute as pc

    ends = pc.min_max(pc.list_value_length(lists)).as_py()
    return bool(ends["min"] == ends["max"])


def _labels(table: pa.Table, path: Path) -> list[object] | None:
    if "label" not in table.column_names:
        return None
    import pyarrow as pa

    if pa.types.is_nested(table["label"].type):
        raise DataError(f"{path}: column 'label': expected integers or texts, found {table['label'].type}")
    if table["label"].null_count:
        raise DataError(f"{path}: column 'label': {table['label'].null_count} of {len(table)} rows have none")
    values: list[object] = table["label"].to_pylist()
    return values


def _places(lists: Sequence[Sequence[object]], ids: list[str], path: Path) -> list[list[int]]:
    """Ids as row numbers; an id that is not in the gallery is named."""
    place_of = {name: place for place, name in enumerate(ids)}
    try:
        return [[place_of[str(name)] for name in each] for each in lists]
    except KeyError as error:
        raise ConfigError(f"--relevant {path}: no item has the id {json.loads(json.dumps(error.args[0]))!r}") from None
