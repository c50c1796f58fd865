"""Random changes by the application and by the gallery: each point has the vector of its content."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.gallery.test_adopt_changes import STEPS, Model, random

from nobackfill.gallery import Gallery

qdrant_client = pytest.importorskip("qdrant_client")
models = qdrant_client.models


class Points(Model):
    """As `Model`, of a collection."""

    def __init__(self, gallery: Gallery) -> None:
        self.store, self.client = gallery.store, gallery.store.client  # type: ignore[attr-defined]
        self.layout, self.puts, self.piles = "new-column", 0, {}

    def put(self, row: int, seed: int) -> None:
        self.puts += 1
        vector = random(4, 100 * self.puts + seed)
        named = {"v": (2 * vector).tolist()}
        if row in self.piles and seed % 2:  # leaves the other named vectors, an upsert does not
            self.client.update_vectors("items", [models.PointVectors(id=row, vector=named)])
        else:
            self.client.upsert("items", [models.PointStruct(id=row, vector=named, payload={})])
        self.piles[row] = [(1, vector)]

    def null(self, row: int, _: int) -> None:
        if self.piles.pop(row, None):
            self.client.delete_vectors("items", ["v"], [row])

    def delete(self, row: int, _: int) -> None:
        self.client.delete("items", [row])
        self.piles.pop(row, None)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(steps=STEPS)
def test_whatever_happens_each_point_has_the_vector_of_its_content(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        client = qdrant_client.QdrantClient(path=folder)
        size = models.VectorParams(size=4, distance=models.Distance.COSINE)
        client.create_collection("items", vectors_config={"v": size})
        client.close()
        gallery = Gallery.adopt(f"qdrant:{folder}#items", "old")
        for number, dim in enumerate(Points.dims[1:], 2):
            gallery.store.add_generation(number, dim)
        model: Any = Points(gallery)
        for row in range(4):
            model.put(row, row)
        for name, row, seed in steps:
            getattr(model, name)(row, seed)
        model.check()
        counts = gallery.store.counts()
        gallery.store.compact(forget_kept=False)
        model.check()
        assert gallery.store.counts() == counts
        gallery.store.compact(forget_kept=True)
        model.check()
        gallery.store.close()
