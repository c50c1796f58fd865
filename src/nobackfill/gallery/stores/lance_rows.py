"""Rows of a LanceDB table as changes make them: Arrow in, Arrow out; nothing is read or written here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.gallery.stores.base import Floats, ItemBatch, Payload

if TYPE_CHECKING:
    import pyarrow as pa


def new_rows(items: ItemBatch, former: Mapping[str, tuple[int, int]], first: int, floor: int) -> pa.Table:
    """Rows of items that are added, or replaced whole.

    Args:
        items: what the rows hold.
        former: number and version of those that are there already.
        first: number of the first new item.
        floor: no removed item had a higher version.
    """
    import pyarrow as pa

    numbers = [former.get(name, (first + place, 0))[0] for place, name in enumerate(items.ids)]
    versions = [former.get(name, (0, floor))[1] + 1 for name in items.ids]
    return pa.table(
        {
            "id": pa.array(items.ids, pa.string()),
            "seq": pa.array(numbers, pa.int64()),
            "generation": pa.array([items.generation] * len(items.ids), pa.int32()),
            "version": pa.array(versions, pa.int64()),
            "payload": pa.array([json.dumps(dict(payload)) for payload in items.payloads], pa.string()),
            f"g{items.generation}": vector_column(items.vectors),
        }
    )


def with_payloads(rows: pa.Table, payloads: Mapping[str, Payload]) -> pa.Table:
    """The rows with other payloads and the next version."""
    import pyarrow as pa

    texts = [json.dumps(dict(payloads[name])) for name in rows.column("id").to_pylist()]
    versions = [version + 1 for version in rows.column("version").to_pylist()]
    return _with(_with(rows, "payload", pa.array(texts, pa.string())), "version", pa.array(versions, pa.int64()))


def to_replace(rows: pa.Table, items: ItemBatch) -> pa.Table:
    """The rows that get a new vector: of an older generation, and of the expected version where one is given."""
    import pyarrow as pa

    expected = dict(zip(items.ids, items.versions, strict=True)) if items.versions else {}
    keys = zip(*(rows.column(name).to_pylist() for name in ("id", "generation", "version")), strict=True)
    chosen = [
        generation < items.generation and expected.get(name, version) == version for name, generation, version in keys
    ]
    return rows.filter(pa.array(chosen, pa.bool_()))


def replaced(rows: pa.Table, items: ItemBatch, *, keep_old: bool) -> pa.Table:
    """The rows with the items' vectors; the vectors before go unless they are kept, other kept ones stay."""
    import pyarrow as pa

    place_of = {name: place for place, name in enumerate(items.ids)}
    former = rows.column("generation").to_numpy()
    for number in [] if keep_old else np.unique(former).tolist():
        rows = _with(rows, f"g{number}", _nulled(rows.column(f"g{number}"), former == number))
    chosen = [place_of[name] for name in rows.column("id").to_pylist()]
    rows = _with(rows, f"g{items.generation}", vector_column(items.vectors[chosen]))
    return _with(rows, "generation", pa.array([items.generation] * rows.num_rows, pa.int32()))


def moved_back(rows: pa.Table, number: int, newer: Sequence[int]) -> pa.Table:
    """The rows with their kept vector of a generation; those of newer generations go."""
    import pyarrow as pa

    left = rows.drop_columns([f"g{each}" for each in newer])
    return _with(left, "generation", pa.array([number] * rows.num_rows, pa.int32()))


def vector_column(vectors: Floats) -> pa.Array:
    """Vectors float32 [n, dim] as a column."""
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])


def vectors_of(rows: pa.Table, name: str) -> Floats:
    """A column of vectors, none of them null, float32 [n, dim]."""
    column = rows.column(name).combine_chunks()
    flat: Floats = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, values)


def _nulled(column: pa.ChunkedArray, where: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    places = np.arange(len(column))
    return column.combine_chunks().take(pa.array(places, mask=where))  # a null place gives null
