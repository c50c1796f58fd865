"""An application that uses a collection of Milvus, for tests of adopting it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.gallery.galleries import COUNT, NEW_VECTORS, OLD, OLD_VECTORS

from nobackfill.gallery import Embedded

pymilvus = pytest.importorskip("pymilvus")
TYPES = pymilvus.DataType
PAYLOADS: list[dict[str, Any]] = [
    {"year": 2000 + place % 9, "lang": ["en", "de", None][place % 3], "price": place / 8,
     "n": [1, True, [1], None, 1.0, "1"][place % 6]}
    for place in range(COUNT)
]  # fmt: skip


class Application:
    """A collection `items` with vectors `text`; the gallery's client does what the application's would."""

    def __init__(self, folder: Path, kind: str = "int", metric: str = "COSINE", index: str = "HNSW") -> None:
        self.path = str(folder / "store.db")
        self.url = f"milvus:{self.path}#items"
        self.keys: list[Any] = [
            10 * place if kind == "int" else f"i{place} '☃\"%_\\ \n{{}}\x01" for place in range(COUNT)
        ]
        self.ids = [str(key) for key in self.keys]
        self.client = pymilvus.MilvusClient(self.path)
        self.scale = 3 if metric == "COSINE" else 1
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=True)
        if kind == "int":
            schema.add_field("key", TYPES.INT64, is_primary=True)
        else:
            schema.add_field("key", TYPES.VARCHAR, is_primary=True, max_length=100)
        schema.add_field("text", TYPES.FLOAT_VECTOR, dim=OLD)
        schema.add_field("year", TYPES.INT32)
        schema.add_field("lang", TYPES.VARCHAR, max_length=10, nullable=True)
        schema.add_field("price", TYPES.FLOAT)
        self.client.create_collection("items", schema=schema, index_params=indexed(self.client, index, metric))
        self.put(range(COUNT), OLD_VECTORS)

    def put(self, places: Any, rows: Any) -> None:
        whole = [{"key": self.keys[place], "text": (self.scale * rows[place]).tolist(), **PAYLOADS[place]}
                 for place in places]  # fmt: skip
        self.client.upsert("items", whole)

    def state(self) -> Any:
        rows = self.client.query("items", filter="", limit=1000, output_fields=["*"])
        return sorted(map(str, rows)), str(self.client.describe_collection("items")), self.client.list_collections()

    def embed(self, ids: list[str]) -> Embedded:
        return Embedded(ids, 2.0 * NEW_VECTORS[[self.ids.index(name) for name in ids]], {})


def indexed(client: Any, index: str, metric: str, field: str = "text") -> Any:
    made = client.prepare_index_params()
    made.add_index(field, index_type=index, metric_type=metric, params={"M": 8, "efConstruction": 64})
    return made
