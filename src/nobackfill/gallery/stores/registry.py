"""Which store a URL means. A new store is one module and one line in `STORES`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.address import Address

if TYPE_CHECKING:
    from nobackfill.gallery.stores.base import Store


@dataclass(frozen=True)
class StoreKind:
    """One kind of store.

    Attributes:
        schemes: of its URLs.
        form: what its URLs look like, for messages and help.
        opener: `module:class` below `nobackfill.gallery.stores`; called with an `Address` and the options.
        name: whether its URLs end in `#name`.
        options: choices for a store that is being made, the default first.
    """

    schemes: tuple[str, ...]
    form: str
    opener: str
    name: Literal["none", "optional", "required"]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


HALF = ("false", "true")
STORES = (
    StoreKind(("faiss",), "faiss:DIR", "faiss_store:FaissStore", "none", {"index": ("flat", "hnsw", "ivfpq")}),
    StoreKind(("lance",), "lance:DIR", "lance_store:LanceStore", "none"),
    StoreKind(
        ("postgresql", "postgres"),
        "postgresql://host/db#table",
        "adopted_postgres:open_postgres",
        "required",
        {"halfvec": HALF},
    ),
    StoreKind(("qdrant",), "qdrant:DIR[#collection]", "adopted_qdrant:open_qdrant", "optional"),
    StoreKind(
        ("qdrant+http", "qdrant+https"), "qdrant+http://host:port#collection", "adopted_qdrant:open_qdrant", "required"
    ),
    StoreKind(("milvus",), "milvus:FILE.db[#name]", "adopted_milvus:open_milvus", "optional"),
    StoreKind(
        ("milvus+http", "milvus+https"), "milvus+http://host:port#name", "adopted_milvus:open_milvus", "required"
    ),
)
FORMS = " or ".join((", ".join(kind.form for kind in STORES[:-1]), STORES[-1].form))


def open_store(url: str, **options: str) -> Store:
    """The store behind a URL, `scheme:location[#name]`; see `STORES` for what there is.

    Args:
        url: as above.
        options: of a store that is being made, such as `index="hnsw"` (FAISS) or `halfvec="true"` (PostgreSQL).

    Raises:
        GalleryError: for another URL, an option the store does not have, or a missing extra.
    """
    address = Address.parse(url)
    kind = next((kind for kind in STORES if address.scheme in kind.schemes), None)
    server = kind is not None and "://" in kind.form
    if kind is None or not address.location or (server and not address.location.startswith("//")):
        raise GalleryError(f"store {address.url!r}: expected {FORMS}")
    if kind.name == "required" and address.name is None:
        raise GalleryError(f"{address.url}: the name is missing; expected {kind.form}")
    if kind.name == "none" and address.name is not None:
        raise GalleryError(f"{address.url}: expected {kind.form} without a '#'; give each gallery its own folder")
    for name, value in options.items():
        if name not in kind.options:
            known = ", ".join(kind.options) or "none"
            raise GalleryError(f"option {name!r}: not an option of {kind.form}; its options: {known}")
        choices = kind.options[name]
        if value not in choices:
            expected = ", ".join(choices[:-1]) + " or " + choices[-1]
            raise GalleryError(f"option {name}={value!r}: expected {expected}")
    module, _, opener = kind.opener.partition(":")
    made: Store = getattr(importlib.import_module(f"nobackfill.gallery.stores.{module}"), opener)(address, **options)
    return made
