"""Whether a collection of Qdrant was adopted, and whether and how it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import MANIFEST, Generation, Manifest
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.adopted_items import check_norms
from nobackfill.gallery.stores.adopted_qdrant_layout import ADOPTION, NUMBERS, Adoption, sketch_name, vector_name
from nobackfill.gallery.stores.adopted_qdrant_store import AdoptedQdrantStore
from nobackfill.gallery.stores.base import Store
from nobackfill.gallery.stores.qdrant_connection import translated
from nobackfill.gallery.stores.qdrant_store import QdrantStore
from nobackfill.gallery.stores.qdrant_writes import BATCH

if TYPE_CHECKING:
    from qdrant_client.models import VectorParams


def open_qdrant(address: Address) -> Store:
    """The store of a URL: of an adopted collection, or of one that the gallery made or is to make itself."""
    adopted = AdoptedQdrantStore(address)
    folder = adopted.connection.folder
    if folder is not None:  # without opening it, for that would lock it, or make it
        return adopted if (folder / "collection" / adopted.documents).is_dir() else QdrantStore(address)
    if address.name is not None and _exists(adopted, adopted.documents):
        return adopted
    adopted.close()
    return QdrantStore(address)


@translated
def inspected(store: AdoptedQdrantStore, column: str | None, payload_keys: tuple[str, ...] | None) -> Adoption:
    """What adopting the collection of a store agrees on.

    Args:
        store: of the collection.
        column: name of the application's vectors; None: the only one there is.
        payload_keys: as in `Adoption`.

    Raises:
        GalleryError: if there is no such collection, it is a gallery already, or it cannot be adopted.
    """
    url, name, folder = store.url, store.name, store.connection.folder
    if (folder is not None and not folder.is_dir()) or not _exists(store, name):
        raise GalleryError(f"{url}: no collection {name!r}; name the application's collection after the #")
    if _exists(store, store.documents) and store.read(MANIFEST) is not None:
        raise GalleryError(f"{url}: is a gallery already; see `gallery status`, or `gallery abandon` it first")
    if _exists(store, beside := name + QdrantStore.SUFFIX):
        raise GalleryError(
            f"{url}: {name!r} was made by a gallery, whose documents are in {beside!r}: open it as it is; if that "
            f"gallery is gone and {name!r} is the application's, delete {beside!r} first"
        )
    vectors = store.client.get_collection(name).config.params.vectors
    if not isinstance(vectors, dict) or "" in vectors:
        raise GalleryError(
            f"{url}: its vectors have no name, and Qdrant takes no vector without a name where others have one, so the "
            "application would be refused after an upgrade; copy it into a collection with a named vector first"
        )
    if any(each.startswith("nobackfill_") for each in vectors):
        raise GalleryError(f"{url}: has vectors named nobackfill_…; what an earlier gallery left must go first")
    if column is None and len(vectors) == 1:
        column = next(iter(vectors))
    if column is None or column not in vectors:
        known = ", ".join(vectors) or "none"
        which = "several vectors" if column is None else f"no vector named {column!r}"
        raise GalleryError(f"{url}: has {which}; choose one with --vector-column: {known}")
    adoption = _agreed(url, column, vectors[column], payload_keys)
    _check_norms(store, adoption)
    return adoption


def statements(store: AdoptedQdrantStore) -> tuple[list[str], list[str]]:
    """The requests that adopting makes, and those of each upgrade."""
    vector, sketch = vector_name(2), sketch_name(2)
    later = [(vector, "DIM"), (sketch, str(NUMBERS))]
    return [f"PUT /collections/{store.documents}"], [
        f'PUT /collections/{store.name}/vectors/{name} {{"dense": {{"size": {size}, "distance": "Dot"}}}}'
        for name, size in later
    ]


@translated
def adopt(store: AdoptedQdrantStore, adoption: Adoption, generation: Generation) -> None:
    """Make the collection beside, with what was agreed; the manifest comes last, and makes it a gallery."""
    if not _exists(store, store.documents):  # else an adoption that was interrupted
        store.make_documents()
    store.write(ADOPTION, adoption.model_dump_json().encode())
    store.write(MANIFEST, Manifest(generations=(generation,)).model_dump_json(indent=1).encode())


@translated
def _exists(store: AdoptedQdrantStore, collection: str) -> bool:
    return bool(store.client.collection_exists(collection))


def _agreed(url: str, column: str, params: VectorParams, payload_keys: tuple[str, ...] | None) -> Adoption:
    distance = str(params.distance.value)
    if params.multivector_config is not None:
        raise GalleryError(f"{url}: {column!r} holds several vectors a point; expected one")
    if distance not in ("Cosine", "Dot"):
        raise GalleryError(f"{url}: {column!r} is compared by {distance}; expected Cosine, or Dot of unit vectors")
    return Adoption(vector=column, dim=int(params.size), cosine=distance == "Cosine", payload_keys=payload_keys)


def _check_norms(store: AdoptedQdrantStore, adoption: Adoption) -> None:
    """Refuse inner products of vectors of any norm: the gallery compares directions."""
    if adoption.cosine:
        return
    for points in store.connection.scroll(store.name, BATCH, None, with_vectors=[adoption.vector]):
        rows = [point.vector[adoption.vector] for point in points if adoption.vector in (point.vector or {})]
        check_norms(store.url, adoption.vector, "Dot", rows)
