"""What a table has to be like to be adopted, and what its owner should know before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.adopted_items import NORM_TOLERANCE
from nobackfill.gallery.stores.adopted_layout import Adoption, Layout, Table
from nobackfill.gallery.stores.adopted_partitions import partitions
from nobackfill.gallery.stores.adopted_sql import TEXT, WHOLE, quoted
from nobackfill.gallery.stores.adopted_table import COLUMNS, OURS, payload_types

if TYPE_CHECKING:
    from psycopg import Connection

    from nobackfill.gallery.stores.postgres_connection import Row

SAMPLE = 1000  # vectors looked at
PGVECTOR = (0, 8)
KINDS = {"r": "a table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}
OWN = {"id", "seq", "generation", "version", "payload", "embedding"}  # columns of a gallery's own table
TABLES = "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = %s"
INDEXES = (
    "SELECT i.indexrelid::regclass::text, am.amname, o.opcname, c.reloptions FROM pg_index i "
    "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam "
    "JOIN pg_opclass o ON o.oid = i.indclass[0] "
    "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
    "WHERE i.indrelid = %s::oid AND a.attname = %s AND i.indnatts = 1 AND i.indisvalid AND i.indpred IS NULL "
    "AND am.amname IN ('hnsw', 'ivfflat')"
)
UNIQUE = (
    "SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
    "WHERE i.indrelid = %s::oid AND a.attname = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL "
    "AND i.indnkeyatts = 1 AND a.attnotnull"
)
TRIGGERS = (
    "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::oid AND NOT tgisinternal AND tgtype & 16 > 0 ORDER BY tgname"
)


def inspected(
    connection: Connection,
    url: str,
    place: tuple[str, str],
    id_column: str,
    vector_column: str,
    layout: Layout,
    payload_columns: tuple[str, ...] | None,
) -> tuple[Table, list[str]]:
    """The table as it can be adopted, and notes for its owner.

    Raises:
        GalleryError: if it cannot: in one sentence that says why and what to do.
    """
    oid, kind = _relation(connection, place)
    if kind not in ("r", "p"):
        raise GalleryError(f"{url}: {'.'.join(place)} is {KINDS.get(kind, 'no table')}; expected a table")
    _check_extension(connection, url)
    parts = partitions(connection, oid)
    foreign = [part for part in parts if part.kind not in ("r", "p")]
    if foreign:
        raise GalleryError(f"{url}: its partition {foreign[0].name!r} is {KINDS.get(foreign[0].kind, 'no table')}, to "
                           "which PostgreSQL adds no column on the other server; adopt the table there")  # fmt: skip
    types = {str(name): str(of) for name, of in connection.execute(COLUMNS, place)}
    beside = (place[0], f"{place[1]}_documents")
    if set(types) >= OWN and connection.execute(TABLES, beside).fetchone():
        raise GalleryError(f"{url}: is a table that a gallery made; open it as it is, it needs no adopting")
    for column in (id_column, vector_column, *(payload_columns or ())):
        if column not in types:
            raise GalleryError(f"{url}: no column {column!r}; there are {', '.join(types)[:300]}")
    taken = [name for name in types if OURS.fullmatch(name)]
    if taken:
        raise GalleryError(f"{url}: the table has a column {taken[0]!r} already, a name that galleries give; rename it")
    if types[id_column] not in (*WHOLE, *TEXT, "uuid"):
        raise GalleryError(
            f"{url}: the ids {id_column!r} are of type {types[id_column]}; expected integers, text or uuid"
        )
    if not connection.execute(UNIQUE, (oid, id_column)).fetchone():
        why = ", which in a partitioned table only the column has by which it is partitioned" if kind == "p" else ""
        raise GalleryError(
            f"{url}: the ids {id_column!r} are not known to be unique; expected a column that is NOT NULL and has a "
            f"unique index of its own{why}"
        )
    vectors = types[vector_column].rpartition(".")[2]
    if vectors not in ("vector", "halfvec"):
        raise GalleryError(f"{url}: {vector_column!r} is of type {types[vector_column]}; expected vector or halfvec")
    norms, dim = _norms(connection, url, place, vector_column, vectors)
    found = connection.execute(INDEXES, (oid, vector_column)).fetchall()
    unit = bool(np.all(np.abs(norms - 1) < NORM_TOLERANCE))
    if unit and any(_metric(row[2]) != "cosine" for row in found):
        unit = not _has_other_norms(connection, place, vector_column, vectors)
    adoption = Adoption(
        namespace=place[0],
        table=place[1],
        id_column=id_column,
        vector_column=vector_column,
        dim=dim,
        layout=layout,
        payload_columns=payload_columns,
    )
    usable = [row for row in found if _metric(row[2]) == "cosine" or unit]
    if usable:
        best = min(usable, key=lambda row: row[1] != "hnsw")
        options = ", ".join(best[3] or []) if best[1] == "hnsw" else ""
        adoption = adoption.model_copy(update={"metric": _metric(best[2]), "index_options": options or None})
    table = Table(
        adoption,
        types[id_column],
        cast('Literal["vector", "halfvec"]', vectors),
        payload_types(adoption, types),
        partitioned=kind == "p",
    )
    notes = _notes(connection, table, oid, found, norms, unit=unit)
    if table.partitioned and layout == "new-column":
        notes.append("vector indexes are built partition by partition and attached; a table that is attached as a "
                     "partition later needs the new columns")  # fmt: skip
    return table, notes


def _relation(connection: Connection, place: tuple[str, str]) -> tuple[int, str]:
    found = connection.execute(
        "SELECT c.oid::bigint, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s",
        place,
    ).fetchone()
    return (int(found[0]), str(found[1])) if found else (0, "")


def _check_extension(connection: Connection, url: str) -> None:
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    numbers = tuple(int(part) for part in str(found[0]).split(".")[:2]) if found else (0, 0)
    if numbers < PGVECTOR:
        raise GalleryError(f"{url}: pgvector is {found[0] if found else 'not installed'}; expected 0.8 or later")


def _norms(
    connection: Connection, url: str, place: tuple[str, str], column: str, kind: str
) -> tuple[NDArray[np.float64], int]:
    """Norms of some vectors, and how many values all of these have."""
    name = quoted(column)
    sent = connection.execute(
        f"SELECT {kind}_send({name}) FROM {quoted(*place)} WHERE {name} IS NOT NULL LIMIT %s",
        (SAMPLE,),
    ).fetchall()
    rows = [np.frombuffer(each, ">f2" if kind == "halfvec" else ">f4", offset=4).astype(np.float64) for (each,) in sent]
    declared = connection.execute(
        "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(%s) || '.' || quote_ident(%s)) "
        "AND attname = %s",
        (*place, column),
    ).fetchone()
    dims = {len(row) for row in rows} | ({int(declared[0])} if declared and declared[0] > 0 else set())
    if len(dims) != 1:
        found = (
            f"vectors of {', '.join(map(str, sorted(dims)))} values" if dims else "no vectors, and its type has no size"
        )
        raise GalleryError(f"{url}: {column!r} holds {found}; expected vectors of one size")
    return np.array([np.linalg.norm(row) for row in rows]), dims.pop()


def _has_other_norms(connection: Connection, place: tuple[str, str], column: str, kind: str) -> bool:
    """Whether a vector has another norm than 1: reads the table up to the first one, whole if there is none."""
    norm = f"{'l2_norm' if kind == 'halfvec' else 'vector_norm'}({quoted(column)})"
    found = connection.execute(f"SELECT 1 FROM {quoted(*place)} WHERE abs({norm} - 1) >= %s LIMIT 1", (NORM_TOLERANCE,))
    return found.fetchone() is not None


def _metric(operators: str) -> Literal["cosine", "ip", "l2"] | None:
    named: dict[str, Literal["cosine", "ip", "l2"]] = {"cosine": "cosine", "ip": "ip", "l2": "l2"}
    return named.get(operators.split("_")[1]) if operators.count("_") == 2 else None


def _notes(
    connection: Connection,
    table: Table,
    oid: int,
    indexes: list[Row],
    norms: NDArray[np.float64],
    *,
    unit: bool,
) -> list[str]:
    adoption, notes = table.adoption, []
    if adoption.metric is None:
        why = (
            "the index is for inner product or distance, and the vectors have other norms than 1"
            if indexes
            else "no index"
        )
        notes.append(f"searches read all rows: {adoption.vector_column!r}: {why}")
    elif not unit:
        notes.append("vectors have other norms than 1; a gallery compares them by their cosine")
    if np.any(norms == 0):
        notes.append("some vectors are zero; searches do not find them, and verify lists them")
    triggers = [str(name) for (name,) in connection.execute(TRIGGERS, (oid,))]
    if triggers:
        notes.append(f"a backfill updates rows, so these triggers run for each: {', '.join(triggers)}")
    secured = connection.execute("SELECT row_security_active(%s::oid)", (oid,)).fetchone()
    if secured and secured[0]:
        notes.append("row security holds for this role: the gallery sees and backfills only the rows it lets through")
    if connection.execute("SELECT 1 FROM pg_publication_rel WHERE prrelid = %s::oid", (oid,)).fetchone():
        notes.append("the table is published: add the new columns at its subscribers first")
    if adoption.layout == "new-column" and adoption.metric is not None:
        notes += _memory(connection, table, oid)
    return notes


def _memory(connection: Connection, table: Table, oid: int) -> list[str]:
    """An index over many rows is built in memory, or it takes very long."""
    found = connection.execute(
        "SELECT max(greatest(reltuples, 0))::bigint, (SELECT setting::bigint * 1024 FROM pg_settings "
        "WHERE name = 'maintenance_work_mem') FROM pg_class "
        "WHERE oid = %s::oid OR oid IN (SELECT relid FROM pg_partition_tree(%s::oid))",
        (oid, oid),
    ).fetchone()
    rows, memory = (int(found[0]), int(found[1])) if found else (0, 0)
    needed = rows * (table.adoption.dim * (2 if table.kind == "halfvec" else 4) + 400)
    if needed <= memory:
        return []
    return [
        f"if you ever rebuild an index of all {rows} rows (REINDEX), set maintenance_work_mem to about "
        f"{needed / 2**30:.1f} GB (it is {memory / 2**20:.0f} MB); parallel builds take that from /dev/shm, which "
        "containers often limit to 64 MB: docker run --shm-size, or max_parallel_maintenance_workers = 0"
    ]
