"""Exact search in a LanceDB table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.gallery.filters import Filter, matches
from nobackfill.gallery.formats import parse_payload
from nobackfill.gallery.stores.base import Floats, Nearest
from nobackfill.gallery.stores.lance_rows import vectors_of
from nobackfill.gallery.stores.lance_table import generations, pages

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

PAGE = 8192


def nearest(table: Table, number: int, queries: Floats, k: int) -> Nearest:
    """The best k of a generation for each query, by LanceDB."""
    if number not in generations(table) or not len(queries):
        return Nearest.none(len(queries))
    search = table.search(list(queries), vector_column_name=f"g{number}").distance_type("dot").bypass_vector_index()
    rows = search.where(f"generation = {number}").select(["id", "_distance"]).limit(k).to_arrow()
    of_query = rows.column("query_index").to_numpy() if "query_index" in rows.column_names else np.zeros(rows.num_rows)
    names, scores = np.array(rows.column("id").to_pylist(), object), 1 - rows.column("_distance").to_numpy()
    chosen = [np.flatnonzero(of_query == query) for query in range(len(queries))]
    ordered = [some[np.argsort(-scores[some], kind="stable")] for some in chosen]
    return Nearest([names[some].tolist() for some in ordered], [scores[some].astype(np.float32) for some in ordered])


def nearest_matching(table: Table, number: int, queries: Floats, k: int, where: Filter) -> Nearest:
    """The best k of a generation's items that fulfil the filter, compared here, a page of them in memory at a time."""
    best = Nearest.none(len(queries))
    if number not in generations(table):
        return best
    for rows in pages(table, ["id", "payload", f"g{number}"], f"generation = {number}", PAGE):
        some = matching(rows, where)
        if some.num_rows:
            scores = queries @ vectors_of(some, f"g{number}").T
            best = best.with_more(some.column("id").to_pylist(), scores, k)
    return best


def ids_in_order(table: Table, number: int, where: Filter | None) -> list[str]:
    """Ids of a generation's items that fulfil the filter, in the order they were inserted."""
    import pyarrow as pa

    found = list(_ids_and_numbers(table, number, where))
    if not found:
        return []
    names: list[str] = pa.concat_tables(found).sort_by("seq").column("id").to_pylist()
    return names


def matching(rows: pa.Table, where: Filter) -> pa.Table:
    """The rows whose payload fulfils the filter."""
    import pyarrow as pa

    return rows.filter(pa.array([matches(where, parse_payload(text)) for text in rows.column("payload").to_pylist()]))


def _ids_and_numbers(table: Table, number: int, where: Filter | None) -> Iterator[pa.Table]:
    columns = ["id", "seq"] if where is None else ["id", "seq", "payload"]
    for rows in pages(table, columns, f"generation = {number}", PAGE):
        yield (rows if where is None else matching(rows, where)).select(["id", "seq"])
