"""Which store a URL means."""

from __future__ import annotations

from typing import Any

from nobackfill.errors import GalleryError
from nobackfill.gallery.store import Store, without_credentials


def open_store(url: str, **options: Any) -> Store:
    """The store behind a URL: `faiss:DIR`, `postgresql://…#table`, `qdrant:DIR`, `qdrant+http://host:port#collection`.

    Args:
        url: as above.
        options: of a store that is being made: `index` for FAISS (flat, hnsw, ivfpq), `halfvec` for PostgreSQL.

    Raises:
        GalleryError: for another URL, or a missing extra.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "faiss" and rest:
        from nobackfill.gallery.faiss_store import FaissStore  # noqa: PLC0415

        return FaissStore(rest, **options)
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        from nobackfill.gallery.postgres_store import PostgresStore  # noqa: PLC0415

        return PostgresStore(url, **options)
    if (scheme == "qdrant" and rest) or scheme in ("qdrant+http", "qdrant+https"):
        from nobackfill.gallery.qdrant_store import QdrantStore  # noqa: PLC0415

        return QdrantStore(url, **options)
    raise GalleryError(
        f"store {without_credentials(url)!r}: expected faiss:DIR, postgresql://…#table, qdrant:DIR or "
        "qdrant+http://host:port#collection"
    )
