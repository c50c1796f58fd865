"""A gallery in Qdrant: a collection with one named vector a generation, `g1`, `g2`, …, so that it is upgraded in place.

A point carries {id, generation, seq, version, mark, payload}, what filters need (`qdrant_filters`), and the vector of
its generation (and those that were kept). One upsert replaces a point with all it has, so a replacement is seen whole;
`qdrant_writes` says how writers heed each other. Generations are searched oldest first: an item that
moves meanwhile is seen twice rather than not at all, and the newer sight counts. Manifest and journal are points of the
collection `<name>__nobackfill`; so are the hits, one point a count, since Qdrant has no counters.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter as Where
from nobackfill.gallery.stores.base import CREATING, Floats, ItemBatch, Nearest, Payload, Store
from nobackfill.gallery.stores.qdrant_connection import grouped, point_id, translated
from nobackfill.gallery.stores.qdrant_documents import QdrantDocuments
from nobackfill.gallery.stores.qdrant_filters import qdrant_filter
from nobackfill.gallery.stores.qdrant_writes import BATCH, PointWriter, kept
from nobackfill.gallery.stores.sampling import sampled

if TYPE_CHECKING:
    from qdrant_client.models import Filter, Record

OWN = re.compile(r"g[0-9]+")  # named vectors


class QdrantStore(QdrantDocuments, Store):
    """See the module; `qdrant:DIR[#collection]` is Qdrant's local mode, `qdrant+http://…#collection` a server."""

    @property
    def writer(self) -> PointWriter:
        """Changes points."""
        return PointWriter(self.client, self.models, self.name, self.documents, self.url)

    @translated
    def create(self) -> None:
        folder = self.connection.folder
        if folder and not self.connection.opened and folder.is_dir() and any(folder.iterdir()):
            collections = (folder / "collection").is_dir()
            if not collections or (folder / "collection" / self.name).exists():
                raise GalleryError(f"{self.url}: exists and is not empty; choose another folder or remove it")
        unfinished = self.client.collection_exists(self.documents) and not self.client.count(self.documents).count
        if unfinished and not self.client.collection_exists(self.name):  # a creation that was killed at its first write
            self.client.delete_collection(self.documents)
        for name in (self.name, self.documents):
            if self.client.collection_exists(name):
                raise GalleryError(f"{self.url}: the collection {name!r} exists; choose another name or delete it")
        self.make_documents()
        self.write(CREATING, b"{}")  # before the items: what is half made is begun again
        self.client.create_collection(self.name, vectors_config={})
        if not folder:
            fields = (("generation", "integer"), ("seq", "integer"), ("version", "integer"), ("tokens", "keyword"))
            for field, kind in fields:
                self.client.create_payload_index(self.name, field, kind, wait=True)

    @translated
    def drop(self) -> None:
        if not self.client.collection_exists(self.documents):  # then the other collection is somebody else's
            raise GalleryError(f"{self.url}: no gallery there; nothing was removed")
        if self._is_own():
            self.client.delete_collection(self.name)
        self.client.delete_collection(self.documents)
        folder = self.connection.folder
        if folder and not self.client.get_collections().collections:
            self.connection.close()
            for path in (*folder.glob("nobackfill*.lock"), folder / "meta.json", folder / ".lock"):
                path.unlink(missing_ok=True)
            for path in (folder / "collection", folder):
                with contextlib.suppress(OSError):  # the user's own files are in it
                    path.rmdir()

    @translated
    def add_generation(self, number: int, dim: int) -> None:
        dims = self._dims()
        if dims.get(number) == dim:
            return
        if number in dims:  # of a generation that was rolled back
            self.client.delete_vector_name(self.name, f"g{number}")
        params = self.models.DenseVectorConfig(size=dim, distance=self.models.Distance.DOT)
        named = self.models.DenseVectorNameConfig(dense=params)
        self.client.create_vector_name(self.name, f"g{number}", named, wait=True)

    @translated
    def insert(self, items: ItemBatch) -> None:
        writer = self.writer
        there = writer.there(items.ids)
        if there or len(set(items.ids)) < len(items.ids):
            name = next(iter(there), "twice in one batch")
            raise GalleryError(f"{self.url}: item {name!r} already exists; ids are unique in a gallery")
        writer.upsert(items, self._last() + 1)

    @translated
    def upsert(self, items: ItemBatch) -> None:
        self.writer.upsert(items, self._last() + 1)

    @translated
    def delete(self, ids: Sequence[str]) -> int:
        removed, wanted = self.writer.delete(ids), set(ids)
        hits = [(name, -count) for name, count in self.hits() if name in wanted]
        if hits:
            self.write_point(str(uuid.uuid4()), {"hits": [list(one) for one in hits]})
        return removed

    @translated
    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        return self.writer.set_payloads(payloads)

    @translated
    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        return {name: int(point.payload["version"]) for name, point in self.writer.there(ids).items()}

    @translated
    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        return self.writer.replace(items, keep_old=keep_old)

    @translated
    def search(self, queries: Mapping[int, Floats], k: int, where: Where | None = None) -> dict[int, Nearest]:
        nearest = {}
        # Local mode is exact in any case, and warns of parameters.
        exact = None if where is None or self.connection.folder else self.models.SearchParams(exact=True)
        for number in sorted(queries):
            requests = [
                self.models.QueryRequest(
                    query=row.tolist(),
                    using=f"g{number}",
                    filter=self._of(number, where),
                    params=exact,
                    limit=k,
                    with_payload=["id"],
                )
                for row in queries[number]
            ]
            answers = self.client.query_batch_points(self.name, requests)
            nearest[number] = Nearest(
                [[point.payload["id"] for point in answer.points] for answer in answers],
                [np.array([point.score for point in answer.points], np.float32) for answer in answers],
            )
        return nearest

    @translated
    def counts(self, where: Where | None = None) -> dict[int, int]:
        counts = {
            number: self.client.count(self.name, count_filter=self._of(number, where), exact=True).count
            for number in sorted(self._dims())
        }
        return {number: count for number, count in counts.items() if count}

    def ids(self, generation: int, size: int = 8192, where: Where | None = None) -> Iterator[list[str]]:
        order, seen = self.models.OrderBy(key="seq", start_from=0), set[str]()
        while points := [
            one
            for one in self.connection.page(self.name, self._of(generation, where), order, size + len(seen))
            if one.id not in seen
        ]:
            yield [point.payload["id"] for point in points]
            last = points[-1].payload["seq"]
            order = self.models.OrderBy(key="seq", start_from=last)
            seen = {point.id for point in points if point.payload["seq"] == last}

    @translated
    def sample(self, count: int, seed: int) -> list[str]:
        def look_up(numbers: list[int]) -> dict[int, list[str]]:
            known: dict[int, list[str]] = {}
            for start in range(0, len(numbers), BATCH):
                some = self.models.MatchAny(any=numbers[start : start + BATCH])
                wanted = self.models.Filter(must=[self.models.FieldCondition(key="seq", match=some)])
                for points in self.connection.scroll(self.name, BATCH, wanted, with_vectors=False):
                    for point in points:  # two that were added at one moment may have one number
                        known.setdefault(point.payload["seq"], []).append(point.payload["id"])
            return known

        last = self._last()
        drawn = sampled(0, last, count, seed, look_up) if last >= 0 else []
        return [name for names in drawn for name in names][:count]

    @translated
    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        points = [point_id(name) for name in ids]
        retrieved = []
        for start in range(0, len(points), BATCH):
            some = points[start : start + BATCH]
            retrieved += self.client.retrieve(self.name, some, with_payload=True, with_vectors=True)
        return grouped(retrieved)

    @translated
    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        return {name: point.payload["payload"] for name, point in self.writer.there(ids).items()}

    def scan(self, size: int) -> Iterator[ItemBatch]:
        for points in self.connection.scroll(self.name, size, None, with_vectors=True):
            yield from grouped(points, payloads=False)

    @translated
    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        newer = self.models.Filter(
            must=[self.models.FieldCondition(key="generation", range=self.models.Range(gt=generation))]
        )

        def pages() -> Iterator[list[Record]]:
            return self.connection.scroll(self.name, BATCH, newer, with_vectors=True)

        missing = sum(not kept(point, generation) for page in pages() for point in page)
        if not missing or leave_new:
            for page in pages():
                self.writer.restore(page, generation)
        return missing

    @translated
    def compact(self, *, forget_kept: bool) -> None:
        """Qdrant rebuilds its indexes itself, and vectors that nobody asked to keep went with their replacement."""
        numbers = set(self._dims()) if forget_kept else set()
        for number in numbers:
            others = [f"g{other}" for other in numbers - {number}]
            if others:
                self.client.delete_vectors(self.name, others, self._of(number), wait=True)

    def _is_own(self) -> bool:
        """Whether a gallery made the collection: an application may have made one in the place of a deleted one."""
        if not self.client.collection_exists(self.name):
            return False
        vectors = self.client.get_collection(self.name).config.params.vectors or {}
        if not vectors:
            return not self.client.count(self.name).count
        return isinstance(vectors, dict) and all(OWN.fullmatch(name) for name in vectors)

    def _last(self) -> int:
        """The highest sequence number in use; −1 if there is none."""
        newest = self.models.OrderBy(key="seq", direction=self.models.Direction.DESC)
        points, _ = self.client.scroll(self.name, limit=1, order_by=newest, with_payload=["seq"])
        return int(points[0].payload["seq"]) if points else -1

    def _dims(self) -> dict[int, int]:
        vectors = self.client.get_collection(self.name).config.params.vectors or {}
        return {int(name[1:]): int(params.size) for name, params in vectors.items()}

    def _of(self, generation: int, where: Where | None = None) -> Filter:
        return qdrant_filter(self.models, where or (), generation)
