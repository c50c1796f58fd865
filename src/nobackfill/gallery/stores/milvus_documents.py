"""Documents and hits of a gallery in Milvus, whose fields hold at most 65,535 bytes: documents are cut into pieces."""

from __future__ import annotations

import base64
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from nobackfill.gallery.stores.milvus_connection import MilvusConnection, key_of

PIECE = 45_000  # bytes, before base64
SETTLED = 0.2  # seconds in which writes that began together have ended
NOWHERE = [1.0, 0.0]  # every row of Milvus needs a vector


class MilvusDocuments:
    """Two collections, `…__documents` and `…__hits`."""

    def __init__(self, connection: MilvusConnection) -> None:
        self.connection, self.url = connection, connection.url

    def make(self, mark: str | None = None) -> None:
        """Empty collections, but for a document `mark`, which is there as soon as can be."""
        self.connection.make("documents", [("data", "VARCHAR")], 2)
        if mark is not None:
            self.write(mark, b"{}")
        self.connection.make("hits", [("item", "VARCHAR"), ("id", "VARCHAR"), ("hits", "INT64")], 2)

    def are_blank(self) -> bool:
        """Whether the collection is one that `make` made, and holds no document yet."""
        with self.connection.translated():
            found = self.connection.client.describe_collection(self.connection.collection("documents"))
        if {field["name"] for field in found["fields"]} != {"pk", "data", "vector"}:  # somebody else's
            return False
        pages = self.connection.pages("documents", 'pk != ""', ["pk"], 1000)
        return all("-" in row["pk"] for page in pages for row in page)  # pieces that no row names

    def read(self, name: str) -> bytes | None:
        """A document, None if there is none."""
        if not self.connection.there("documents"):
            return None
        while True:
            parts = self._pieces(name)
            if not parts:
                return None
            found = {row["pk"]: row["data"] for row in self.connection.get("documents", parts, ["data"])}
            if len(found) == len(parts):
                return b"".join(base64.b64decode(found[part]) for part in parts)
            if parts == self._pieces(name):  # not replaced while it was read: the pieces are lost
                return None

    def write(self, name: str, data: bytes | None) -> None:
        """Replace a document, or remove it. The row that names the pieces is written after them."""
        former = self._pieces(name)
        if data is not None:
            whole, mark = data, uuid.uuid4().hex[:16]
            texts = [base64.b64encode(whole[start : start + PIECE]).decode() for start in range(0, len(whole), PIECE)]
            texts = texts or [""]
            rows = [{"pk": f"{mark}-{place}", "data": text, "vector": NOWHERE} for place, text in enumerate(texts)]
            self.connection.put("documents", rows)
            head = {"pk": key_of(name), "data": f"{mark}-{len(texts)}", "vector": NOWHERE}
            self.connection.put("documents", [head])
        elif former:
            self.connection.delete("documents", [key_of(name)])
        if former:
            self.connection.delete("documents", former)

    def exchange(self, name: str, before: bytes | None, after: bytes | None) -> bool:
        """Replace a document if it is what it was before; whether that was done, as far as Milvus lets one know.

        It has no conditional writes: of several that write at the same moment the last one is taken to have won.
        """
        if self.read(name) != before:
            return False
        self.write(name, after)
        if after is not None:
            time.sleep(SETTLED)
        return self.read(name) == after

    def count(self, hits: Mapping[str, int]) -> None:
        """A new row for each count: nothing is read and written back, so none is lost."""
        rows = [
            {"pk": uuid.uuid4().hex, "item": key_of(name), "id": name, "hits": count, "vector": NOWHERE}
            for name, count in hits.items()
        ]
        self.connection.put("hits", rows)

    def forget(self, ids: Sequence[str]) -> None:
        """Removes the counts of these items."""
        wanted = ", ".join(f'"{key_of(name)}"' for name in ids)
        keys = [
            row["pk"] for page in self.connection.pages("hits", f"item in [{wanted}]", ["pk"], 1000) for row in page
        ]
        self.connection.delete("hits", keys)

    def hits(self) -> Iterator[tuple[str, int]]:
        """Items and counts, the largest first; adds them up in memory."""
        total: Counter[str] = Counter()
        for page in self.connection.pages("hits", "hits > 0", ["id", "hits"], 1000):
            for row in page:
                total[row["id"]] += int(row["hits"])
        yield from total.most_common()

    def _pieces(self, name: str) -> list[str]:
        rows = self.connection.get("documents", [key_of(name)], ["data"])
        if not rows:
            return []
        mark, _, count = rows[0]["data"].partition("-")
        return [f"{mark}-{place}" for place in range(int(count))]
