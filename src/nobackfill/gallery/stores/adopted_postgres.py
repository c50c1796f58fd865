"""Which store a PostgreSQL URL means: of an adopted table, or of a gallery's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.adopted_postgres_store import AdoptedPostgresStore
from nobackfill.gallery.stores.adopted_table import adopted, connection_of, named, resolved
from nobackfill.gallery.stores.base import Store
from nobackfill.gallery.stores.postgres_store import PostgresStore

if TYPE_CHECKING:
    from psycopg import Connection


def open_postgres(address: Address, halfvec: str = "false") -> Store:
    """The store of a URL: of an adopted table, or of one that the gallery made or is to make itself.

    It goes on with the connection by which that was found out.
    """
    if address.name is None:
        return PostgresStore(address, halfvec)
    connection = connection_of(address).connect(autocommit=False)
    try:
        store = _adopted(connection, address, address.name) or PostgresStore(address, halfvec)
        store.db.keep(connection)
    except BaseException:
        connection.close()
        raise
    return store


def _adopted(connection: Connection, address: Address, name: str) -> AdoptedPostgresStore | None:
    for namespace, table in named(name):
        found = resolved(connection, namespace, table)
        if found and adopted(connection, *found):
            return AdoptedPostgresStore(address, *found)
    return None
