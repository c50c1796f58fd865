"""Adopting a table that already runs: it becomes a gallery where it is, and `abandon` leaves it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.job import JOB, stop_any_job
from nobackfill.gallery.lineage import MANIFEST, Generation, Manifest
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import Floats, Store
from nobackfill.gallery.undoing import unless_refused

if TYPE_CHECKING:
    from psycopg import Connection

    from nobackfill.gallery.stores.adopted_items import AdoptedItems
    from nobackfill.gallery.stores.adopted_layout import Layout, Table

POSTGRES = ("postgresql", "postgres")
QDRANT = ("qdrant", "qdrant+http", "qdrant+https")
MILVUS = ("milvus", "milvus+http", "milvus+https")
VECTOR_COLUMN = "embedding"


@dataclass(frozen=True)
class AdoptionPlan:
    """What adopting does, before it is done.

    Attributes:
        url: of the gallery, without credentials.
        generation: of the vectors that are there.
        statements: that will be run now.
        later: that an upgrade will run.
        notes: what the owner should know.
        carry_out: does it, and returns the store.
    """

    url: str
    generation: Generation
    statements: list[str]
    later: list[str]
    notes: list[str]
    carry_out: Callable[[], Store]


def plan_adoption(
    url: str,
    name: str,
    *,
    vector_column: str | None = None,
    id_column: str = "id",
    fingerprint: str | None = None,
    layout: Layout = "new-column",
    payload_columns: tuple[str, ...] | None = None,
) -> AdoptionPlan:
    """Look at a table or collection and say what adopting it will change.

    Args:
        url: `postgresql://host/db#table`, also `#schema.table` or `#"schema"."table"`; or a collection of Qdrant
            (`qdrant:DIR#collection`, `qdrant+http://host:port#collection`) or of Milvus (`milvus:FILE.db#collection`,
            `milvus+http://host:port#collection`).
        name: of the model that made the vectors.
        vector_column: of type vector or halfvec, default `embedding`. Qdrant, Milvus: the name of its vector, default
            the only one.
        id_column: unique; integers, text or UUIDs. Qdrant, Milvus: points have their ids, rows their primary key.
        fingerprint: of that model; None: its name stands for it.
        layout: where vectors of later models go: a `new-column` each, or the `same-column` (their compatible part).
        payload_columns: what is known of an item; None: every other column, or the whole payload.

    Raises:
        GalleryError: if there is no such table or collection, it is adopted already, or it cannot be adopted.
    """
    from nobackfill.gallery.stores.adopted_inspection import inspected
    from nobackfill.gallery.stores.adopted_table import connection_of

    address = Address.parse(url)
    if address.scheme in QDRANT + MILVUS and address.name is not None:
        if layout != "new-column":
            raise GalleryError(f"{address.url}: layout {layout!r}: a collection can only be new-column")
        if id_column != "id":
            raise GalleryError(f"{address.url}: id column {id_column!r}: a collection has its own ids; leave it out")
        plan = _plan_qdrant if address.scheme in QDRANT else _plan_milvus
        return plan(address, name, vector_column, fingerprint, payload_columns)
    if address.scheme not in POSTGRES or address.name is None:
        raise GalleryError(
            f"{address.url}: expected postgresql://host/db#table, qdrant:DIR#collection or milvus:FILE.db#collection"
        )
    vector_column = vector_column or VECTOR_COLUMN
    db = connection_of(address)
    with contextlib.closing(db.connect(autocommit=True)) as connection:
        try:
            place = _found(connection, address)
            table, notes = inspected(connection, address.url, place, id_column, vector_column, layout, payload_columns)
            generation = _first(name, table.adoption.dim, fingerprint)
            return _plan(connection, address, table, generation, notes)
        except db.psycopg.Error as error:
            from nobackfill.gallery.stores.adopted_ddl import refused

            raise refused(address.url, error) from None


def _found(connection: Connection, address: Address) -> tuple[str, str]:
    """The table that the URL names; raises `GalleryError` if there is none, or it is a gallery already."""
    from nobackfill.gallery.stores.adopted_layout import side_schema
    from nobackfill.gallery.stores.adopted_table import adopted, document, named, resolved

    for namespace, name in named(address.name or ""):
        place = resolved(connection, namespace, name)
        if place and adopted(connection, *place) and document(connection, side_schema(*place), MANIFEST) is not None:
            raise GalleryError(
                f"{address.url}: is a gallery already; see `gallery status`, or `gallery abandon` it first"
            )
        if place:
            return place
    raise GalleryError(f"{address.url}: no table {address.name!r}; expected #table or #schema.table")


def _plan(
    connection: Connection, address: Address, table: Table, generation: Generation, notes: list[str]
) -> AdoptionPlan:
    from nobackfill.gallery.stores.adopted_ddl import change, later_changes, missing, side_changes
    from nobackfill.gallery.stores.adopted_layout import ADOPTION
    from nobackfill.gallery.stores.adopted_postgres_store import AdoptedPostgresStore
    from nobackfill.gallery.stores.adopted_sql import plain
    from nobackfill.gallery.stores.adopted_table import connection_of, save

    adoption = table.adoption
    changes = side_changes(adoption, table.id_type, table.kind)
    statements = missing(connection, changes)

    def documents(connection: Connection) -> None:
        save(connection, adoption.side, ADOPTION, adoption.model_dump_json().encode())
        save(
            connection, adoption.side, MANIFEST, Manifest(generations=(generation,)).model_dump_json(indent=1).encode()
        )

    def carry_out() -> Store:
        db = connection_of(address)
        with contextlib.closing(db.connect(autocommit=True)) as later:
            left = missing(later, changes)  # an administrator may have made them since
        change(db, left, grant=adoption, then=documents)
        return AdoptedPostgresStore(address, adoption.namespace, adoption.table)

    return AdoptionPlan(
        address.url, generation, [plain(each) for each in statements], later_changes(table), notes, carry_out
    )


def compatible_part(store: Store, rows: Floats) -> Floats:
    """New unit vectors [n, dim] as a store holds them: some only hold the first values, at unit norm."""
    dim: int | None = getattr(store, "compatible_dim", None)
    if dim is None:
        return rows
    part = np.zeros_like(rows)
    norms = np.linalg.norm(rows[:, :dim], axis=1, keepdims=True)
    part[:, :dim] = rows[:, :dim] / np.where(norms == 0, 1, norms)
    return part


def abandon_statements(store: Store, *, leave_new: bool = False) -> list[str]:
    """What abandoning runs; raises `GalleryError` for a store that was not adopted."""
    return _adopted(store).undo_statements(leave_new=leave_new)


def abandon(store: Store, *, leave_new: bool = False) -> None:
    """Take away everything that adopting and upgrading made; the application's rows and columns stay.

    Args:
        store: of an adopted table or collection.
        leave_new: leave the vectors of the newest model that has any where they are, for the application to go on with.

    Raises:
        GalleryError: if the store was not adopted; if a backfill is running; or if there are rows that only have new
            vectors, and `leave_new` is not given.
    """
    adopted = _adopted(store)
    with adopted.lock(), unless_refused(adopted, JOB):
        stop_any_job(adopted)  # its workers hold the locks of their pieces, not this one
        adopted.drop(leave_new=leave_new)


def _adopted(store: Store) -> AdoptedItems:
    """A store that was adopted; raises `GalleryError` for another one."""
    from nobackfill.gallery.stores.adopted_items import AdoptedItems

    if not isinstance(store, AdoptedItems):
        raise GalleryError(f"{store.url}: was not adopted, so there is nothing to give back")
    return store


def _first(name: str, dim: int, fingerprint: str | None) -> Generation:
    """The generation of the vectors that are there."""
    generation = Generation.named(name, dim)
    return generation if fingerprint is None else generation.model_copy(update={"fingerprint": fingerprint})


def _plan_qdrant(
    address: Address, name: str, column: str | None, fingerprint: str | None, payload_keys: tuple[str, ...] | None
) -> AdoptionPlan:
    """See `plan_adoption`."""
    from nobackfill.gallery.stores.adopted_qdrant import adopt, inspected, statements
    from nobackfill.gallery.stores.adopted_qdrant_store import AdoptedQdrantStore

    with contextlib.closing(AdoptedQdrantStore(address)) as store:
        adoption = inspected(store, column, payload_keys)
    generation = _first(name, adoption.dim, fingerprint)
    now, later = statements(store)
    notes = ["a point whose own vector the application changes counts as old again; status and backfill read the "
             "own vectors of all points that have a new one"]  # fmt: skip

    def carry_out() -> Store:
        made = AdoptedQdrantStore(address)
        adopt(made, inspected(made, column, payload_keys), generation)
        return made

    return AdoptionPlan(address.url, generation, now, later, notes, carry_out)


def _plan_milvus(
    address: Address, name: str, column: str | None, fingerprint: str | None, payload_keys: tuple[str, ...] | None
) -> AdoptionPlan:
    """See `plan_adoption`."""
    from nobackfill.gallery.stores.adopted_milvus import adopt, inspected, statements
    from nobackfill.gallery.stores.adopted_milvus_store import AdoptedMilvusStore

    with contextlib.closing(AdoptedMilvusStore(address)) as store:
        adoption = inspected(store, column, payload_keys)
        now, later = statements(store)
    generation = _first(name, adoption.dim, fingerprint)
    notes = [
        f"{address.name} itself is only read: new vectors lie in collections beside it, and nearly double its memory",
        "a row whose own vector the application changes counts as old again; status and backfill read the own vectors "
        "of all rows that have a new one",
    ]

    def carry_out() -> Store:
        made = AdoptedMilvusStore(address)
        adopt(made, inspected(made, column, payload_keys), generation)
        return made

    return AdoptionPlan(address.url, generation, now, later, notes, carry_out)
