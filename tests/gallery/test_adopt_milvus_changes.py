"""Random changes by the application and by the gallery: each row has the vector of its content."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.gallery.test_adopt_changes import STEPS, Model, random

from nobackfill.gallery import Gallery

pytest.importorskip("milvus_lite")
pymilvus = pytest.importorskip("pymilvus")


class Rows(Model):
    """As `Model`, of a collection."""

    def __init__(self, gallery: Gallery, client: Any) -> None:
        self.store, self.client = gallery.store, client
        self.layout, self.puts, self.piles = "new-column", 0, {}

    def put(self, row: int, seed: int) -> None:
        self.puts += 1
        vector = random(4, 100 * self.puts + seed)
        self.client.upsert("items", [{"id": row, "vector": (2 * vector).tolist()}])
        self.piles[row] = [(1, vector)]

    def delete(self, row: int, _: int) -> None:
        self.client.delete("items", ids=[row])
        self.piles.pop(row, None)

    null = delete


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(steps=STEPS)
def test_whatever_happens_each_row_has_the_vector_of_its_content(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        client = pymilvus.MilvusClient(path)
        client.create_collection("items", dimension=4)  # as quick starts do it: AUTOINDEX, COSINE
        gallery = Gallery.adopt(f"milvus:{path}#items", "old")
        for number, dim in enumerate(Rows.dims[1:], 2):
            gallery.store.add_generation(number, dim)
        model: Any = Rows(gallery, client)
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
        client.close()
