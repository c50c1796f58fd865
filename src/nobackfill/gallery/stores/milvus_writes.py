"""Writes to a gallery in Milvus: whole or not at all, though an item's rows are in several collections.

Milvus has no transactions. A write that moves items to another generation first writes down what it is about to do (the
intent), then adds the new rows, marked as its own, then removes or sets aside the rows they take the place of. If it is
cut short, the next one to open the gallery finishes the part that was begun: rows with the mark win.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Literal

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.milvus_connection import BATCH, MilvusConnection, Row, key_of
from nobackfill.gallery.stores.milvus_documents import MilvusDocuments

FIELDS = [
    ("id", "VARCHAR"),
    ("seq", "INT64"),
    ("version", "INT64"),
    ("current", "BOOL"),
    ("mark", "VARCHAR"),
    ("payload", "JSON"),
]
ALL = ["pk", *(name for name, _ in FIELDS), "vector"]
INTENT, GENERATIONS = "intent", "generations"
MAKING = "making"  # document: the generation whose collection is being made; a killed process may have left it
Others = Literal["go", "kept go too", "are kept", "newer go"]
"""What becomes of an item's rows in other generations."""


class MilvusRows:
    """The collections of the generations, `…__g1`, `…__g2`, …; the caller holds the lock for writes.

    In each an item has at most one row; `current` says whether it is the item's vector or a kept one.
    """

    def __init__(self, connection: MilvusConnection, documents: MilvusDocuments) -> None:
        self.connection, self.documents = connection, documents

    def check_free(self) -> None:
        """Raises `GalleryError` if a collection has the name of one that a gallery to be created will have."""
        there = self.connection.beside()
        if there == ["documents"] and self.documents.are_blank():  # of a creation that was killed at its first write
            self.connection.remove("documents")
            return
        if "documents" in there:
            url = self.connection.url
            raise GalleryError(f"{url}: a gallery of this name exists; choose another name or drop it")
        if there:
            raise self._foreign(there[0])

    def dims(self) -> dict[int, int]:
        """Size of the vectors by generation."""
        data = self.documents.read(GENERATIONS)
        return {int(number): int(dim) for number, dim in json.loads(data).items()} if data else {}

    def make(self, number: int, dim: int) -> None:
        """An empty collection for a generation, unless there is one of this size."""
        dims, there = self.dims(), self.connection.there(f"g{number}")
        if there and dims.get(number) == dim:
            return
        if there and number not in self.made():
            raise self._foreign(f"g{number}")
        self.documents.write(MAKING, str(number).encode())
        self.connection.remove(f"g{number}")
        self.connection.make(f"g{number}", FIELDS, dim)
        self.documents.write(GENERATIONS, json.dumps({**dims, number: dim}).encode())
        self.documents.write(MAKING, None)

    def made(self) -> set[int]:
        """Generations whose collections the gallery made, or began to make."""
        making = self.documents.read(MAKING)
        return {*self.dims(), *([int(making)] if making else [])}

    def current(self, ids: Sequence[str], fields: Sequence[str]) -> dict[str, tuple[int, Row]]:
        """For each item that is there its generation and these fields; of two at one moment the newer one."""
        keys, found = [key_of(name) for name in ids], dict[str, tuple[int, Row]]()
        for number in sorted(self.dims()):
            for row in self.connection.get(f"g{number}", keys, sorted({"id", "current", *fields})):
                if row["current"]:
                    found[row["id"]] = number, row
        return found

    def move(self, number: int, rows: list[Row], others: Others) -> None:
        """Put rows into a generation as their items' vectors."""
        mark = uuid.uuid4().hex
        keys = [row["pk"] for row in rows]
        self.documents.write(INTENT, json.dumps([number, keys, mark, others]).encode())
        self.connection.put(f"g{number}", [{**row, "current": True, "mark": mark} for row in rows])
        self._settle(number, keys, others)
        self.documents.write(INTENT, None)

    def finish(self) -> None:
        """Bring to its end what another one began."""
        data = self.documents.read(INTENT)
        if data is None:
            return
        number, keys, mark, others = json.loads(data)
        there = self.connection.get(f"g{number}", keys, ["mark"]) if number in self.dims() else []
        self._settle(number, [row["pk"] for row in there if row["mark"] == mark], others)
        self.documents.write(INTENT, None)

    def remove(self, keys: Sequence[str]) -> None:
        """Items with their kept vectors."""
        for number in self.dims():
            self.connection.delete(f"g{number}", keys)

    def batches(self, number: int, where: str) -> Iterator[list[Row]]:
        """Whole rows that fulfil a condition, read before the caller changes them."""
        keys = [row["pk"] for page in self.connection.pages(f"g{number}", where, ["pk"], BATCH) for row in page]
        for start in range(0, len(keys), BATCH):
            yield self.connection.get(f"g{number}", keys[start : start + BATCH], ALL)

    def _foreign(self, suffix: str) -> GalleryError:
        """What to say of a collection of somebody else's that is in the way."""
        name = self.connection.collection(suffix)
        return GalleryError(
            f"{self.connection.url}: the gallery's collection would be {name!r}, and there is one that is not the "
            "gallery's; choose another name after the #, or drop or rename that collection"
        )

    def _settle(self, number: int, keys: Sequence[str], others: Others) -> None:
        for other in self.dims():
            if other == number or (others == "newer go" and other < number):
                continue
            if others in {"kept go too", "newer go"}:
                self.connection.delete(f"g{other}", keys)
                continue
            rows = [row for row in self.connection.get(f"g{other}", keys, ALL) if row["current"]]
            if others == "go":
                self.connection.delete(f"g{other}", [row["pk"] for row in rows])
            else:
                self.connection.put(f"g{other}", [{**row, "current": False} for row in rows])
