"""Whether a collection of Milvus was adopted, and whether and how it can be."""

from __future__ import annotations

import re
from typing import Literal, cast

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import MANIFEST, Generation, Manifest
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.adopted_items import check_norms
from nobackfill.gallery.stores.adopted_milvus_layout import ADOPTION, STAMP, Adoption
from nobackfill.gallery.stores.adopted_milvus_rows import AdoptedRows, later_generations
from nobackfill.gallery.stores.adopted_milvus_store import AdoptedMilvusStore, request
from nobackfill.gallery.stores.base import Store
from nobackfill.gallery.stores.milvus_connection import NAME, SUFFIX, Row
from nobackfill.gallery.stores.milvus_store import MilvusStore

OWN = re.compile(rf"(.+)__(?:{SUFFIX.pattern})")  # a gallery's own collections
METRICS = ("COSINE", "IP", "L2")
PARAMS = ("M", "efConstruction", "nlist", "m", "nbits")  # of an index, that later generations get too


def open_milvus(address: Address) -> Store:
    """The store of a URL: of an adopted collection, or of one that the gallery made or is to make itself."""
    if address.name is not None and NAME.fullmatch(address.name):
        adopted = AdoptedMilvusStore(address)
        if adopted.connection.there("documents"):
            return adopted
        adopted.close()
    return MilvusStore(address)


def inspected(store: AdoptedMilvusStore, column: str | None, payload_keys: tuple[str, ...] | None) -> Adoption:
    """What adopting the collection of a store agrees on.

    Args:
        store: of the collection.
        column: name of the application's vectors; None: the only one there is.
        payload_keys: as in `Adoption`.

    Raises:
        GalleryError: if there is no such collection, it is a gallery already, or it cannot be adopted.
    """
    url, connection = store.url, store.connection
    if connection.folder is not None and not connection.folder.exists():
        raise GalleryError(f"{url}: no collection {store.name!r}; expected milvus:FILE.db#collection")
    if store.read(MANIFEST) is not None:
        raise GalleryError(f"{url}: is a gallery already; see `gallery status`, or `gallery abandon` it first")
    with connection.translated():
        if not connection.client.has_collection(store.name):
            raise GalleryError(f"{url}: no collection {store.name!r}; name the application's collection after the #")
        found = connection.client.describe_collection(store.name)
    if found["collection_name"] != store.name:
        raise GalleryError(f"{url}: {store.name!r} is an alias; name the collection itself: {found['collection_name']}")
    made = OWN.fullmatch(store.name)
    with connection.translated():
        if made and connection.client.has_collection(f"{made[1]}__documents"):
            raise GalleryError(f"{url}: {store.name!r} was made by a gallery; open {made[1]!r}, it needs no adopting")
    later = later_generations(connection)
    if later:  # a new gallery would take it for its own
        left = connection.collection(f"g{later[-1]}")
        raise GalleryError(f"{url}: has {left!r} beside it; drop or rename what an earlier gallery left")
    types = {field["name"]: connection.library.DataType(field["type"]).name for field in found["fields"]}
    vectors = [name for name, kind in types.items() if "VECTOR" in kind]
    if column is None and len(vectors) == 1:
        column = vectors[0]
    if column is None or column not in vectors:
        which = "several vectors" if column is None and vectors else f"no vector named {column or ''!r}"
        raise GalleryError(f"{url}: has {which}; choose one with --vector-column: {', '.join(vectors) or 'none'}")
    field = next(field for field in found["fields"] if field["name"] == column)
    if types[column] != "FLOAT_VECTOR" or field.get("nullable"):
        kind = f"{'nullable ' if field.get('nullable') else ''}{types[column]}"
        raise GalleryError(f"{url}: {column!r} is a {kind}; expected a FLOAT_VECTOR that every row has")
    adoption = _agreed(store, found, types, column, int(field["params"]["dim"]), payload_keys)
    _check_norms(store, adoption)
    return adoption


def statements(store: AdoptedMilvusStore) -> tuple[list[str], list[str]]:
    """The requests that adopting makes, and those of each upgrade."""
    made = [request("create", store.connection.collection(suffix)) for suffix in ("hits", "documents")]
    return made, [request("create", store.connection.collection("g2"))]


def adopt(store: AdoptedMilvusStore, adoption: Adoption, generation: Generation) -> None:
    """Make the collections beside, with what was agreed; the manifest comes last, and makes it a gallery."""
    if not store.connection.there("documents"):  # else an adoption that was interrupted
        store.connection.remove("hits")
        store.documents.make()
    store.write(ADOPTION, adoption.model_dump_json().encode())
    store.write(MANIFEST, Manifest(generations=(generation,)).model_dump_json(indent=1).encode())


def _agreed(
    store: AdoptedMilvusStore,
    found: Row,
    types: dict[str, str],
    column: str,
    dim: int,
    payload_keys: tuple[str, ...] | None,
) -> Adoption:
    url = store.url
    key = next(field for field in found["fields"] if field.get("is_primary"))
    for name in (key["name"], column):
        if not NAME.fullmatch(name) or name == STAMP:
            raise GalleryError(f"{url}: field {name!r}: expected a name of letters, digits and _ other than {STAMP}")
    fields = {name: kind for name, kind in types.items() if "VECTOR" not in kind and name != key["name"]}
    dynamic = bool(found.get("enable_dynamic_field"))
    unknown = [name for name in payload_keys or () if name not in fields and not dynamic]
    if unknown:
        raise GalleryError(f"{url}: no field {unknown[0]!r}; there are {', '.join(fields)[:300] or 'none'}")
    index = _index(store, column)
    return Adoption(
        key=key["name"],
        key_length=None if types[key["name"]] == "INT64" else int(key["params"]["max_length"]),
        vector=column,
        dim=dim,
        metric=cast("Literal['COSINE', 'IP', 'L2']", index["metric_type"]),
        index_type=str(index["index_type"]),
        index_params={name: str(value) for name, value in index.items() if name in PARAMS},
        fields=fields,
        dynamic=dynamic,
        payload_keys=payload_keys,
    )


def _index(store: AdoptedMilvusStore, column: str) -> Row:
    """The index of the application's vectors."""
    client, url = store.connection.client, store.url
    with store.connection.translated():
        for name in client.list_indexes(store.name):
            index = dict(client.describe_index(store.name, name) or {})
            if index.get("field_name") == column:
                if index.get("metric_type") not in METRICS:
                    raise GalleryError(f"{url}: {column!r} is compared by {index.get('metric_type')}; expected "
                                       "COSINE, or IP or L2 of unit vectors")  # fmt: skip
                return index
    raise GalleryError(f"{url}: {column!r} has no index, so Milvus does not search it; create one first")


def _check_norms(store: AdoptedMilvusStore, adoption: Adoption) -> None:
    """Refuse inner products and distances of vectors of any norm: the gallery compares directions."""
    if adoption.metric == "COSINE":
        return
    for rows in AdoptedRows(store.connection, store.name, adoption, ()).pages([adoption.vector]):
        check_norms(store.url, adoption.vector, adoption.metric, [row[adoption.vector] for row in rows])
