"""URLs of stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.gallery.galleries import (
    FIRST,
    OLD,
    fresh,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, open_store
from nobackfill.gallery.stores.address import Address, without_credentials
from nobackfill.gallery.stores.qdrant_connection import QdrantConnection


def test_urls() -> None:
    assert (
        without_credentials("postgresql://me:secret@host:5432/db?password=x#items") == "postgresql://host:5432/db#items"
    )
    for password in ("pa#ss", "pa?ss", "pa/ss", "p@ss"):  # not encoded: where it ends, nobody knows
        assert without_credentials(f"postgresql://me:{password}@host/db#items") == "postgresql://…"
    assert without_credentials("postgresql://me:x@host/db?password=a@b#items") == "postgresql://…"
    assert without_credentials("qdrant+https://:key@host:6333#photos") == "qdrant+https://host:6333#photos"
    assert without_credentials("postgresql://host/db?sslmode=require#a") == "postgresql://host/db#a"
    with pytest.raises(GalleryError, match=r"^store 'postgresql://…': has a second '#' .* as %23$"):
        open_store("postgresql://host/db?password=a#b#items")
    assert without_credentials("faiss:a@b") == "faiss:a@b"
    assert without_credentials("mysql:me:secret@host") == "mysql:…"
    with pytest.raises(GalleryError, match="expected faiss:DIR") as caught:
        open_store("mysql://me:secret@host/db")
    assert "secret" not in str(caught.value)
    assert json.loads(FIRST.model_dump_json())["dim"] == OLD


SECRET = "s3cret"
MALFORMED = [
    f"host=h password={SECRET}",
    f"dbname=d host=h:1 password={SECRET}",
    f"faiss://u:{SECRET}@h",
    f"postgresql:u:{SECRET}",
    f"postgresql:u:{SECRET}@h/db#t",
    f"postgresql:{SECRET}",
    f"postgresql:/u:{SECRET}@h/db#t",
    f"postgresql://u:{SECRET}@[::1/db#t",
    f"postgresql://u:{SECRET}@h:port/db#t",
    f"postgresql://h/db?password={SECRET}",
    f"postgresql://h/db?password=a#{SECRET}#t",
    f"postgresql://u@h/db?user=a&password=a#{SECRET}#t",
    f"milvus+http://h/?token=a#{SECRET}#t",
    f"qdrant+http://:{SECRET}@[::1#c",
    f"qdrant+http:u:{SECRET}@h#c",
    f"qdrant+ftp://u:{SECRET}@h#c",
    f"u:{SECRET}@h",
    f"{SECRET}",
    f" postgresql://u:{SECRET}@h/db",
    f"POSTGRESQL://u:{SECRET}@h/db",
    f"milvus+http:{SECRET}",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_address_never_shows_a_password(url: str) -> None:
    with pytest.raises(GalleryError) as caught:
        open_store(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in without_credentials(url)


def test_control_characters_of_an_address_are_escaped() -> None:
    assert without_credentials("faiss:a\x1b]0;b") == r"faiss:a\x1b]0;b"
    assert without_credentials("postgresql://h/d\n#t\u202e") == r"postgresql://h/d\n#t\u202e"


def test_one_grammar_for_all_stores() -> None:
    address = Address.parse("qdrant:some/dir#photos")
    assert (address.scheme, address.location, address.name) == ("qdrant", "some/dir", "photos")
    address = Address.parse("postgresql://me:secret@host/db#items")
    assert (address.server, address.name) == ("postgresql://me:secret@host/db", "items")
    assert "secret" not in repr(address)
    with pytest.raises(GalleryError, match="expected faiss:DIR without a '#'"):
        open_store("faiss:dir#name")
    for url in ("postgresql://host/db", "postgresql:db#items", "qdrant+http://host", "faiss:", "faiss"):
        with pytest.raises(GalleryError, match="expected "):
            open_store(url)


def test_options_are_those_of_the_store() -> None:
    with pytest.raises(GalleryError, match="option index='tree': expected flat, hnsw or ivfpq"):
        open_store("faiss:dir", index="tree")
    with pytest.raises(GalleryError, match="option 'halfvec': not an option of faiss:DIR; its options: index"):
        open_store("faiss:dir", halfvec="true")


def test_two_collections_in_one_local_folder(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client")
    for name in ("one", "two"):
        store = open_store(f"qdrant:{tmp_path / 'dir'}#{name}")
        fresh(store)
        store.close()
    store = open_store(f"qdrant:{tmp_path / 'dir'}#two")
    assert Gallery.open(store).verify() == []
    assert [path.name for path in tmp_path.iterdir()] == ["dir"]
    store.close()
    with pytest.raises(GalleryError, match="exists"):
        fresh(open_store(f"qdrant:{tmp_path / 'dir'}#one"))


def test_keys_are_decoded() -> None:
    pytest.importorskip("qdrant_client")
    connection = QdrantConnection(Address.parse("qdrant+https://:a%2Fb%40@host:6333#photos"))
    assert connection.client()._client._rest_headers["api-key"] == "a/b@"
    connection.close()
