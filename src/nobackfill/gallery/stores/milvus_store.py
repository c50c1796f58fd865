"""A gallery in Milvus: a collection a generation, since its vectors are of one size; documents and hits beside them.

`milvus:FILE.db[#name]` is milvus-lite, which serves one process; `milvus+http(s)://host:port#name` is a server or a
cluster, whose token comes from MILVUS_TOKEN. Collections are compared exactly (FLAT, inner product). Generations are
searched oldest first: an item that moves meanwhile is seen twice rather than not at all, and the newer sight counts.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import CREATING, Floats, ItemBatch, LockTakenError, Nearest, Payload, Store
from nobackfill.gallery.stores.folder_lock import folder_lock
from nobackfill.gallery.stores.milvus_connection import MilvusConnection, Row, key_of
from nobackfill.gallery.stores.milvus_documents import MilvusDocuments
from nobackfill.gallery.stores.milvus_search import CURRENT, matching, nearest
from nobackfill.gallery.stores.milvus_writes import ALL, INTENT, MilvusRows
from nobackfill.gallery.stores.qdrant_lease import lease

PATIENCE = 60.0  # seconds to wait for other writers
FLOOR = "removed-version"  # document: the highest version of a removed item; one that is added again goes on from it
WRITING = threading.RLock()  # of this process; files and leases are for the others


class MilvusStore(Store):
    """See the module."""

    def __init__(self, address: Address) -> None:
        self.url = address.url
        self._connection = MilvusConnection(address)
        self._documents = MilvusDocuments(self._connection)
        self._rows = MilvusRows(self._connection, self._documents)
        self._looked = False  # for a write that was cut short

    def read(self, name: str) -> bytes | None:
        return self._documents.read(name)

    def write(self, name: str, data: bytes | None) -> None:
        self._documents.write(name, data)

    def create(self) -> None:
        self._rows.check_free()
        if self._connection.folder:
            self._connection.folder.parent.mkdir(parents=True, exist_ok=True)
        self._documents.make(CREATING)

    def drop(self) -> None:
        if not self._connection.there("documents"):
            raise GalleryError(f"{self.url}: no gallery there; nothing was removed")
        for suffix in (*(f"g{number}" for number in self._rows.made()), "hits", "documents"):
            self._connection.remove(suffix)

    def add_generation(self, number: int, dim: int) -> None:
        with self._writing():
            self._rows.make(number, dim)

    def insert(self, items: ItemBatch) -> None:
        with self._writing():
            there = self._rows.current(items.ids, ["pk"])
            if there or len(set(items.ids)) < len(items.ids):
                name = next(iter(there)) if there else next(one for one in items.ids if items.ids.count(one) > 1)
                raise GalleryError(f"{self.url}: item {name!r} already exists; ids are unique in a gallery")
            self._connection.put(f"g{items.generation}", self._new_rows(items, {}))

    def upsert(self, items: ItemBatch) -> None:
        with self._writing():
            former = {name: row for name, (_, row) in self._rows.current(items.ids, ["seq", "version"]).items()}
            self._rows.move(items.generation, self._new_rows(items, former), "kept go too")

    def delete(self, ids: Sequence[str]) -> int:
        with self._writing():
            there = self._rows.current(ids, ["version"])
            if there:
                highest = max(self._floor(), *(int(row["version"]) for _, row in there.values()))
                self.write(FLOOR, str(highest).encode())  # before the items go: too high does no harm
                self._rows.remove([key_of(name) for name in there])
                self._documents.forget(list(there))
            return len(there)

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        with self._writing():
            there = self._rows.current(list(payloads), ALL)
            for number in {number for number, _ in there.values()}:
                rows = [
                    {**row, "payload": dict(payloads[name]), "version": row["version"] + 1}
                    for name, (generation, row) in there.items()
                    if generation == number
                ]
                self._connection.put(f"g{number}", rows)
            return len(there)

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        return {name: int(row["version"]) for name, (_, row) in self._ready().current(ids, ["version"]).items()}

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        with self._writing():
            there = self._rows.current(items.ids, ALL)
            versions: Sequence[int | None] = items.versions or [None] * len(items.ids)
            rows, left = [], []
            for name, vector, version in zip(items.ids, items.vectors, versions, strict=True):
                generation, row = there.get(name, (items.generation, {}))
                if generation >= items.generation or version not in {None, row["version"]}:
                    left.append(name)
                else:
                    rows.append({**row, "vector": vector.tolist()})
            if rows:
                self._rows.move(items.generation, rows, "are kept" if keep_old else "go")
            return left

    def search(self, queries: Mapping[int, Floats], k: int, where: Filter | None = None) -> dict[int, Nearest]:
        known, found = self._known(), {}
        for number in sorted(queries):
            if number in known and len(queries[number]):
                found[number] = nearest(self._connection, number, queries[number], k, where)
            else:
                found[number] = Nearest.none(len(queries[number]))
        return found

    def counts(self, where: Filter | None = None) -> dict[int, int]:
        counts = {}
        for number in sorted(self._known()):
            if where is None:
                counts[number] = self._connection.count(f"g{number}", CURRENT)
            else:
                counts[number] = sum(map(len, matching(self._connection, number, where, ["pk"], 8192)))
        return {number: count for number, count in counts.items() if count}

    def ids(self, generation: int, size: int = 8192, where: Filter | None = None) -> Iterator[list[str]]:
        """Holds all ids of the generation while it goes on."""
        if generation not in self._known():
            return
        pages = matching(self._connection, generation, where, ["id", "seq"], 8192)
        names = [name for _, name in sorted((row["seq"], row["id"]) for page in pages for row in page)]
        for start in range(0, len(names), size):
            yield names[start : start + size]

    def sample(self, count: int, seed: int) -> list[str]:
        """Reads the keys of all items."""
        keys = [
            (number, row["pk"])
            for number in sorted(self._known())
            for page in matching(self._connection, number, None, ["pk"], 8192)
            for row in page
        ]
        if not keys:
            return []
        places = np.random.default_rng(seed).choice(len(keys), min(count, len(keys)), replace=False)
        chosen = [keys[place] for place in sorted(places.tolist())]
        rows: list[Row] = []
        for number in {number for number, _ in chosen}:
            wanted = [key for generation, key in chosen if generation == number]
            rows += self._connection.get(f"g{number}", wanted, ["id", "seq"])
        return [row["id"] for row in sorted(rows, key=lambda row: row["seq"])]

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        there = self._ready().current(ids, ALL)
        batches = []
        for number in sorted({number for number, _ in there.values()}):
            rows = [row for generation, row in there.values() if generation == number]
            rows.sort(key=lambda row: row["seq"])
            batches.append(
                ItemBatch(
                    [row["id"] for row in rows],
                    number,
                    np.array([row["vector"] for row in rows], np.float32),
                    [row["payload"] for row in rows],
                    [int(row["version"]) for row in rows],
                )
            )
        return batches

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        return {name: row["payload"] for name, (_, row) in self._ready().current(ids, ["payload"]).items()}

    def scan(self, size: int) -> Iterator[ItemBatch]:
        for number in sorted(self._known()):
            for rows in matching(self._connection, number, None, ["id", "vector"], size):
                vectors = np.array([row["vector"] for row in rows], np.float32)
                yield ItemBatch([row["id"] for row in rows], number, vectors, [])

    def count_hits(self, hits: Mapping[str, int]) -> None:
        self._documents.count(hits)

    def hits(self) -> Iterator[tuple[str, int]]:
        return self._documents.hits() if self._connection.there("hits") else iter(())

    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        with self._writing():
            dims = self._rows.dims()
            older = sorted((number for number in dims if number <= generation), reverse=True)
            newer = {
                row["pk"]
                for number in dims
                if number > generation
                for page in matching(self._connection, number, None, ["pk"], 8192)
                for row in page
            }
            kept: set[str] = set()
            for number in older:
                pages = self._connection.pages(f"g{number}", "current == false", ["pk"], 8192)
                kept |= {row["pk"] for page in pages for row in page} & newer
            if newer - kept and not leave_new:
                return len(newer - kept)
            done: set[str] = set()
            for number in older:  # the newest kept vector is put back
                for rows in self._rows.batches(number, "current == false"):
                    chosen = [row for row in rows if row["pk"] in newer - done]
                    done |= {row["pk"] for row in chosen}
                    if chosen:
                        self._rows.move(number, self._as_now(chosen, generation), "newer go")
            return len(newer - kept)

    def compact(self, *, forget_kept: bool) -> None:
        """Milvus compacts by itself."""
        with self._writing():
            for number in self._rows.dims() if forget_kept else ():
                pages = self._connection.pages(f"g{number}", "current == false", ["pk"], 8192)
                self._connection.delete(f"g{number}", [row["pk"] for page in pages for row in page])

    def lock(self, name: str = "gallery") -> AbstractContextManager[Callable[[], None]]:
        """milvus-lite: a lock on a file. A server: a lease that its owner renews, and that ends with it."""
        folder = self._connection.folder
        if folder is None:
            return lease(self._documents, f"lock-{name}")
        return folder_lock(folder.with_name(f".{folder.name}.{self._connection.name}.{name}.lock"), self.url)

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time."""
        until = time.monotonic() + PATIENCE
        with WRITING, contextlib.ExitStack() as stack:
            while self._connection.folder is None:
                try:
                    stack.enter_context(lease(self._documents, "lock-write"))
                    break
                except LockTakenError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
            if not self._connection.there("documents"):
                raise self._absent()
            self._rows.finish()
            yield

    def _ready(self) -> MilvusRows:
        """The rows, after what a killed process began is finished."""
        if not self._connection.there("documents"):
            raise self._absent()
        if not self._looked:
            self._looked = True
            if self.read(INTENT) is not None:
                with self._writing():
                    pass
        return self._rows

    def _known(self) -> dict[int, int]:
        return self._ready().dims()

    def _absent(self) -> GalleryError:
        return GalleryError(f"{self.url}: no gallery there; create one with `gallery create`")

    def _floor(self) -> int:
        return int(self.read(FLOOR) or 0)

    def _new_rows(self, items: ItemBatch, former: Mapping[str, Row]) -> list[Row]:
        first, new = time.time_ns(), {"version": self._floor()}
        return [
            {
                "pk": key_of(name),
                "id": name,
                "seq": former[name]["seq"] if name in former else first + place,
                "version": former.get(name, new)["version"] + 1,
                "current": True,
                "mark": "",
                "payload": dict(payload),
                "vector": vector.tolist(),
            }
            for place, (name, payload, vector) in enumerate(zip(items.ids, items.payloads, items.vectors, strict=True))
        ]

    def _as_now(self, rows: list[Row], generation: int) -> list[Row]:
        """Kept rows with the payload and version that their items have by now."""
        there = self._rows.current([row["id"] for row in rows], ["payload", "version"])
        now = {name: row for name, (number, row) in there.items() if number > generation}
        return [{**row, **{key: now[row["id"]][key] for key in ("payload", "version")}} for row in rows]
