"""What a gallery made is told from what an application made; what a killed process left, from a gallery."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import COUNT, FIRST, OLD, OLD_VECTORS, fresh

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, open_store
from nobackfill.gallery.adopting import plan_adoption


@pytest.mark.parametrize("kind", ["postgresql", "qdrant", "milvus"])
def test_what_a_gallery_made_is_not_adopted(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "postgresql":
        url = own = f"{request.getfixturevalue('server')}#own {uuid.uuid4().hex}"
    elif kind == "qdrant":
        pytest.importorskip("qdrant_client")
        url = own = f"qdrant:{tmp_path / 'store'}#items"
    else:
        pytest.importorskip("milvus_lite")
        url = f"milvus:{tmp_path / 'store.db'}#items"
        own = f"{url}__g1"
    fresh(store := open_store(url))
    store.close()
    with pytest.raises(GalleryError, match="made by a gallery|a gallery made") as caught:
        plan_adoption(own, "m")
    assert "\n" not in str(caught.value)
    again = Gallery.open(url)
    assert again.count() == COUNT
    again.store.close()


@pytest.mark.parametrize("name", ["text", ""])
def test_a_collection_of_an_application_is_not_replaced_where_a_gallery_was(tmp_path: Path, name: str) -> None:
    models = pytest.importorskip("qdrant_client").models
    store: Any = open_store(f"qdrant:{tmp_path / 'store'}#items")
    fresh(store)
    client = store.client
    client.delete_collection("items")
    size = models.VectorParams(size=2, distance=models.Distance.DOT)
    client.create_collection("items", vectors_config={name: size} if name else size)
    vector = {name: [1.0, 2.0]} if name else [1.0, 2.0]
    client.upsert("items", [models.PointStruct(id=1, vector=vector, payload={})])
    with pytest.raises(GalleryError, match="the collection 'items' exists; choose another name or delete it$"):
        Gallery.create(store, FIRST, replace=True)
    assert client.count("items").count == 1
    client.delete_collection("items")
    assert fresh(store).count() == COUNT
    store.close()


@pytest.mark.parametrize("kind", ["lance", "qdrant", "milvus", "milvus, a piece"])
def test_a_creation_that_was_killed_at_its_first_document_is_begun_again(kind: str, tmp_path: Path) -> None:
    store: Any
    if kind == "lance":
        pytest.importorskip("lancedb")
        store = open_store(f"lance:{tmp_path / 'store'}")
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "beside.sqlite").touch()
        assert list(store.hits()) == []
    elif kind == "qdrant":
        pytest.importorskip("qdrant_client")
        store = open_store(f"qdrant:{tmp_path / 'store'}")
        store.make_documents()
    else:
        pytest.importorskip("milvus_lite")
        store = open_store(f"milvus:{tmp_path / 'store.db'}")
        store._connection.make("documents", [("data", "VARCHAR")], 2)
        if kind != "milvus":
            store._connection.put("documents", [{"pk": "0123-0", "data": "e30=", "vector": [1.0, 0.0]}])
    with pytest.raises(GalleryError, match="no gallery there"):
        Gallery.open(store)
    assert fresh(store).count() == COUNT
    store.close()


def test_an_empty_collection_of_an_application_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    store: Any = open_store(f"milvus:{tmp_path / 'store.db'}#shop")
    client = store._connection.client
    client.create_collection("shop__documents", dimension=2)
    with pytest.raises(GalleryError):
        fresh(store)
    assert client.list_collections() == ["shop__documents"]
    store.close()


@pytest.mark.parametrize("kind", ["Dot", "IP", "L2"])
def test_all_norms_count_where_an_adopted_collection_is_not_compared_by_cosine(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nobackfill.gallery.stores.adopted_qdrant.BATCH", 10)
    monkeypatch.setattr("nobackfill.gallery.stores.adopted_milvus_rows.BATCH", 10)
    write = _points if kind == "Dot" else _rows
    url = write(tmp_path, kind, {**dict(enumerate(OLD_VECTORS)), 50: 3 * OLD_VECTORS[50]})
    with pytest.raises(GalleryError, match=rf"compared by {kind}, and a vector has norm 3.000; expected 1"):
        plan_adoption(url, "m")
    write(tmp_path, kind, {50: OLD_VECTORS[50]})
    gallery = Gallery.adopt(url, "m")
    assert gallery.verify() == []
    gallery.store.close()
    write(tmp_path, kind, {50: 3 * OLD_VECTORS[50]})
    gallery = Gallery.open(url)
    assert gallery.verify() == ["item '50': its vector has norm 3.0000, expected 1"]
    gallery.store.close()


def _points(folder: Path, distance: str, rows: dict[int, np.ndarray]) -> str:
    """Points of a collection of Qdrant, which is made where there is none; its URL."""
    qdrant = pytest.importorskip("qdrant_client")
    models, client = qdrant.models, qdrant.QdrantClient(path=str(folder / "store"))
    if not client.collection_exists("items"):
        size = models.VectorParams(size=OLD, distance=models.Distance(distance))
        client.create_collection("items", vectors_config={"v": size})
    client.upsert("items", [models.PointStruct(id=place, vector={"v": row.tolist()}) for place, row in rows.items()])
    client.close()
    return f"qdrant:{folder / 'store'}#items"


def _rows(folder: Path, metric: str, rows: dict[int, np.ndarray]) -> str:
    """As `_points`, of Milvus."""
    pytest.importorskip("milvus_lite")
    client = pytest.importorskip("pymilvus").MilvusClient(str(folder / "store.db"))
    if not client.has_collection("items"):
        client.create_collection("items", dimension=OLD, metric_type=metric)
    client.upsert("items", [{"id": place, "vector": row.tolist()} for place, row in rows.items()])
    client.close()
    return f"milvus:{folder / 'store.db'}#items"
