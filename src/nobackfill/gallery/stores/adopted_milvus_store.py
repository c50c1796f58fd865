"""A gallery around a collection of Milvus that somebody else made, fills and reads; see `adopted_milvus_layout`.

Rows belong to the application: it adds, changes and removes them with its own client, and what it does counts at once.
A gallery writes to collections of its own only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter
from nobackfill.gallery.formats import parse_document
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.adopted_items import AdoptedItems
from nobackfill.gallery.stores.adopted_milvus_layout import ADOPTION, SIDE, STAMP, Adoption, stamp, version
from nobackfill.gallery.stores.adopted_milvus_rows import AdoptedRows, later_generations
from nobackfill.gallery.stores.adopted_milvus_search import compared, nearest
from nobackfill.gallery.stores.base import Floats, ItemBatch, Nearest, Payload
from nobackfill.gallery.stores.folder_lock import folder_lock
from nobackfill.gallery.stores.milvus_connection import BATCH, NAME, MilvusConnection
from nobackfill.gallery.stores.milvus_documents import MilvusDocuments
from nobackfill.gallery.stores.qdrant_lease import lease


class AdoptedMilvusStore(AdoptedItems):
    """Of one collection."""

    whose = "rows of an adopted collection"

    def __init__(self, address: Address) -> None:
        self.url, self.name = address.url, address.name or "gallery"
        if not NAME.fullmatch(self.name):
            raise GalleryError(f"{self.url}: collection {self.name!r}: expected letters, digits and _ (Milvus's rule)")
        self.connection: MilvusConnection = MilvusConnection(dataclasses.replace(address, name=self.name + SIDE))
        self.documents: MilvusDocuments = MilvusDocuments(self.connection)

    @property
    def adoption(self) -> Adoption:
        """What was agreed; raises `GalleryError` if the collection is adopted no more."""
        data = self.read(ADOPTION)
        if data is None:
            raise GalleryError(f"{self.url}: no gallery there any more: it was abandoned, or its documents are gone")
        return parse_document(Adoption, data, f"{self.url}: its adoption")

    def read(self, name: str) -> bytes | None:
        return self.documents.read(name)

    def write(self, name: str, data: bytes | None) -> None:
        self.documents.write(name, data)

    def drop(self, *, leave_new: bool = False) -> None:
        """Takes away what the gallery made; with `leave_new` that of the newest generation with rows stays."""
        for suffix in self._going(leave_new=leave_new):
            self.connection.remove(suffix)
        if self.connection.folder:
            for path in self.connection.folder.parent.glob(self._lock_file("*").replace("[", "[[]")):
                path.unlink(missing_ok=True)

    def undo_statements(self, *, leave_new: bool = False) -> list[str]:
        """What `drop` does, a line each."""
        return [request("drop", self.connection.collection(each)) for each in self._going(leave_new=leave_new)]

    def add_generation(self, number: int, dim: int) -> None:
        if number == 1:
            return
        suffix, adoption = f"g{number}", self.adoption
        if self.connection.there(suffix) and self._dim(suffix, adoption) == dim:
            return
        self.connection.remove(suffix)  # of a generation that was rolled back
        types = self.connection.library.DataType
        with self.connection.translated():
            client = self.connection.client
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            if adoption.key_length is None:
                schema.add_field(adoption.key, types.INT64, is_primary=True)
            else:
                schema.add_field(adoption.key, types.VARCHAR, is_primary=True, max_length=adoption.key_length)
            schema.add_field(STAMP, types.VARCHAR, max_length=64)
            schema.add_field(adoption.vector, types.FLOAT_VECTOR, dim=dim)
            index = client.prepare_index_params()
            index.add_index(
                adoption.vector, index_type=adoption.index_type, metric_type="IP", params=adoption.index_params
            )
            name = self.connection.collection(suffix)
            client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        rows = self._rows()
        own = rows.own(list(rows.adoption.keys(ids).values()), [rows.adoption.vector])
        return {str(key): version(row[rows.adoption.vector]) for key, row in own.items()}

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        rows = self._rows()
        adoption = rows.adoption
        keys = adoption.keys(items.ids)
        own = rows.own(list(keys.values()), [adoption.vector])
        held = rows.generations(own)
        writes = []
        for place, name in enumerate(items.ids):
            key = keys.get(name)
            if key is None or key not in own or held[key] >= items.generation:
                continue
            vector = own[key][adoption.vector]
            if items.versions and version(vector) != items.versions[place]:
                continue
            # The stamp is of the vector that was read: if the application changes it now, the item is old again.
            writes.append({adoption.key: key, STAMP: stamp(vector), adoption.vector: items.vectors[place].tolist()})
        self.connection.put(f"g{items.generation}", writes)
        made = rows.numbered([row[adoption.key] for row in writes])
        written = {str(key): key for key, number in made.items() if number == items.generation}
        for number in rows.later if written and not keep_old else ():
            if number < items.generation:
                rows.remove(number, list(written.values()))
        return [name for name in items.ids if name not in written]

    def search(self, queries: Mapping[int, Floats], k: int, where: Filter | None = None) -> dict[int, Nearest]:
        rows = self._rows()
        known = {number: asked for number, asked in queries.items() if number in (1, *rows.later) and len(asked)}
        if where is not None:
            found = compared(rows, known, k, where)
        else:
            found = {number: nearest(rows, number, known[number], k) for number in sorted(known)}
        for number in queries.keys() - known:
            found[number] = Nearest.none(len(queries[number]))
        return found

    def counts(self, where: Filter | None = None) -> dict[int, int]:
        rows, counts = self._rows(), dict[int, int]()
        if where is None:  # rows without new vectors need no look
            counts[1] = self._total()
            for number in rows.later:
                pages = (rows.numbered(keys) for keys in rows.side_pages(number))
                counts[number] = sum(list(page.values()).count(number) for page in pages)
                counts[1] -= counts[number]
        else:
            for page in rows.matching(where, BATCH):
                for number in rows.generations(rows.by_key(page)).values():
                    counts[number] = counts.get(number, 0) + 1
        return {number: counts[number] for number in sorted(counts) if counts[number] > 0}

    def ids(self, generation: int, size: int = 8192, where: Filter | None = None) -> Iterator[list[str]]:
        rows, held = self._rows(), list[str]()
        for page in rows.matching(where, BATCH):
            numbers = rows.generations(rows.by_key(page))
            held += [str(key) for key, number in numbers.items() if number == generation]
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
        if held:
            yield held

    def sample(self, count: int, seed: int) -> list[str]:
        """Reads the keys of all rows."""
        rows = self._rows()
        names = (str(row[rows.adoption.key]) for page in rows.pages([]) for row in page)
        drawn = heapq.nsmallest(
            count,
            ((hashlib.sha256(f"{seed}\0{name}".encode()).digest(), place, name) for place, name in enumerate(names)),
        )
        return [name for _, _, name in sorted(drawn, key=lambda each: each[1])]

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        rows = self._rows()
        fields = [rows.adoption.vector, *rows.adoption.payload_fields]
        return list(rows.batches(rows.own(list(rows.adoption.keys(ids).values()), fields), payloads=True))

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        rows = self._rows()
        own = rows.own(list(rows.adoption.keys(ids).values()), rows.adoption.payload_fields)
        return {str(key): rows.adoption.payload(row) for key, row in own.items()}

    def scan(self, size: int) -> Iterator[ItemBatch]:
        rows = self._rows()
        for page in rows.matching(None, size):
            yield from rows.batches(rows.by_key(page), payloads=False)

    def count_hits(self, hits: Mapping[str, int]) -> None:
        self.documents.count(hits)

    def hits(self) -> Iterator[tuple[str, int]]:
        return self.documents.hits()

    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        """New vectors go with their collections, at once; the application's own have stayed."""
        adoption = self.adoption
        for number in later_generations(self.connection):
            if number > generation:
                dim = self._dim(f"g{number}", adoption)
                self.connection.remove(f"g{number}")
                self.add_generation(number, dim)
        return 0

    def compact(self, *, forget_kept: bool) -> None:
        """Removes vectors that no search finds: of generations between the first and the item's, and outdated ones."""
        rows = self._rows()
        for number in rows.later if forget_kept else ():
            for keys in rows.side_pages(number):
                held = rows.numbered(keys)
                rows.remove(number, [key for key in keys if held.get(key) != number])

    def lock(self, name: str = "gallery") -> AbstractContextManager[Callable[[], None]]:
        """milvus-lite: a lock on a file. A server: a lease that its owner renews, and that ends with it."""
        folder = self.connection.folder
        if folder is None:
            return lease(self.documents, f"lock-{name}")
        return folder_lock(folder.with_name(self._lock_file(name)), self.url)

    def close(self) -> None:
        self.connection.close()

    def _rows(self) -> AdoptedRows:
        adoption = self.adoption
        return AdoptedRows(self.connection, self.name, adoption, later_generations(self.connection))

    def _total(self) -> int:
        with self.connection.translated():
            name = self.connection.readable(self.name)
            answer = self.connection.client.query(
                name, filter="", output_fields=["count(*)"], consistency_level="Strong"
            )
            return int(answer[0]["count(*)"])

    def _dim(self, suffix: str, adoption: Adoption) -> int:
        with self.connection.translated():
            fields = self.connection.client.describe_collection(self.connection.collection(suffix))["fields"]
        return next(int(field["params"]["dim"]) for field in fields if field["name"] == adoption.vector)

    def _going(self, *, leave_new: bool) -> list[str]:
        later = later_generations(self.connection)
        # One that was just begun, or forgotten, has a collection without rows.
        held = (number for number in reversed(later) if self.connection.count(f"g{number}", ""))
        stays = next(held, None) if leave_new else None
        return [*(f"g{number}" for number in later if number != stays), "hits", "documents"]

    def _lock_file(self, name: str) -> str:
        folder = self.connection.folder
        return f".{folder.name if folder else ''}.{self.connection.name}.{name}.lock"


def request(verb: str, collection: str) -> str:
    """One of Milvus's requests, as its REST interface has it."""
    return f'POST /v2/vectordb/collections/{verb} {{"collectionName": "{collection}"}}'
