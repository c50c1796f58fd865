"""Which store a PostgreSQL URL means: of an adopted table, or of a gallery's own."""

from __future__ import annotations

import contextlib

from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.adopted_postgres_store import AdoptedPostgresStore
from nobackfill.gallery.stores.adopted_table import adopted, connection_of, named, resolved
from nobackfill.gallery.stores.base import Store
from nobackfill.gallery.stores.postgres_store import PostgresStore


def open_postgres(address: Address, halfvec: str = "false") -> Store:
    """The store of a URL: of an adopted table, or of one that the gallery made or is to make itself."""
    found = None
    if address.name is not None:
        db = connection_of(address)
        with contextlib.closing(db.connect(autocommit=True)) as connection:
            for namespace, table in named(address.name):
                found = resolved(connection, namespace, table)
                if found and adopted(connection, *found):
                    return AdoptedPostgresStore(address, *found)
    return PostgresStore(address, halfvec)
