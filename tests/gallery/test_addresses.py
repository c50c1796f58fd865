"""URLs of stores."""

from __future__ import annotations

import json

import pytest
from tests.gallery.galleries import (
    FIRST,
    OLD,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import open_store
from nobackfill.gallery.stores.address import without_credentials


def test_urls() -> None:
    assert (
        without_credentials("postgresql://me:secret@host:5432/db?password=x#items") == "postgresql://host:5432/db#items"
    )
    for password in ("pa#ss", "pa?ss", "pa/ss", "p@ss"):  # not encoded: where it ends, nobody knows
        assert without_credentials(f"postgresql://me:{password}@host/db#items") == "postgresql://…"
    assert without_credentials("postgresql://me:x@host/db?password=a@b#items") == "postgresql://…"
    assert without_credentials("qdrant+https://:key@host:6333#photos") == "qdrant+https://host:6333#photos"
    assert without_credentials("faiss:a@b") == "faiss:a@b"
    assert without_credentials("mysql:me:secret@host") == "mysql:host"
    with pytest.raises(GalleryError, match="expected faiss:DIR") as caught:
        open_store("mysql://me:secret@host/db")
    assert "secret" not in str(caught.value)
    assert json.loads(FIRST.model_dump_json())["dim"] == OLD
