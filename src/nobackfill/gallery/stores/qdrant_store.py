"""A gallery in Qdrant: a collection with one named vector a generation, `g1`, `g2`, …, so that it is upgraded in place.

A point carries {id, generation, seq, payload} and the vector of its generation (and those that were kept). One upsert
replaces a point with all it has, so a replacement is seen whole. Generations are searched oldest first: an item that
moves meanwhile is seen twice rather than not at all, and the newer sight counts. Manifest and journal are points of the
collection `<name>__nobackfill`; so are the hits, one point a count, since Qdrant has no counters.
"""

from __future__ import annotations

import base64
import functools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.retries import with_retries
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import Floats, ItemBatch, Nearest, Payload, Store
from nobackfill.gallery.stores.folder_lock import folder_lock
from nobackfill.gallery.stores.qdrant_connection import QdrantConnection, grouped, point_id, translated
from nobackfill.gallery.stores.qdrant_lease import lease
from nobackfill.gallery.stores.sampling import sampled

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import Filter

NamedVectors = dict[str, list[float]]
BATCH = 256  # points a request
TRIES = 4


class QdrantStore(Store):
    """See the module; `qdrant:DIR[#collection]` is Qdrant's local mode, `qdrant+http://…#collection` a server."""

    def __init__(self, address: Address) -> None:
        try:
            from qdrant_client import models
        except ImportError as error:
            raise GalleryError("qdrant: needs its extra: pip install 'nobackfill[qdrant]'") from error
        self.models: ModuleType = models
        self.connection = QdrantConnection(address)
        self.url = address.url
        self.name = address.name or "gallery"
        self.documents = f"{self.name}__nobackfill"

    @property
    def client(self) -> QdrantClient:
        """Opened when it is first used."""
        return self.connection.client()

    @translated
    def read(self, name: str) -> bytes | None:
        folder = self.connection.folder
        if (folder and not folder.is_dir()) or not self.client.collection_exists(self.documents):
            return None
        points = self.client.retrieve(self.documents, [point_id(name)], with_payload=True)
        return base64.b64decode(points[0].payload["data"]) if points else None

    @translated
    def write(self, name: str, data: bytes | None) -> None:
        if data is None:
            self.client.delete(self.documents, [point_id(name)], wait=True)
            return
        self._write_document(point_id(name), {"name": name, "data": base64.b64encode(data).decode()})

    @translated
    def create(self) -> None:
        folder = self.connection.folder
        if folder and not self.connection.opened and folder.is_dir() and any(folder.iterdir()):
            collections = (folder / "collection").is_dir()
            if not collections or (folder / "collection" / self.name).exists():
                raise GalleryError(f"{self.url}: exists and is not empty; choose another folder or remove it")
        for name in (self.name, self.documents):
            if self.client.collection_exists(name):
                raise GalleryError(f"{self.url}: the collection {name!r} exists; choose another name or delete it")
        self.client.create_collection(self.name, vectors_config={})
        self.client.create_collection(
            self.documents, vectors_config=self.models.VectorParams(size=1, distance=self.models.Distance.DOT)
        )
        if not folder:
            for field, kind in (("generation", "integer"), ("seq", "integer"), ("id", "keyword")):
                self.client.create_payload_index(self.name, field, kind, wait=True)

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
        points = [point_id(name) for name in items.ids]
        there = self.client.retrieve(self.name, points, with_payload=["id"])
        if there or len(set(points)) < len(points):
            name = there[0].payload["id"] if there else "twice in one batch"
            raise GalleryError(f"{self.url}: item {name!r} already exists; ids are unique in a gallery")
        first = self._total()
        payloads = [
            {"id": name, "generation": items.generation, "seq": first + offset, "payload": dict(payload)}
            for offset, (name, payload) in enumerate(zip(items.ids, items.payloads, strict=True))
        ]
        vectors = [{f"g{items.generation}": vector.tolist()} for vector in items.vectors]
        self._upsert(points, vectors, payloads, BATCH)

    @translated
    def replace(self, items: ItemBatch, *, keep_old: bool) -> None:
        points = [point_id(name) for name in items.ids]
        # From the third generation on a point may carry vectors that were kept before.
        with_vectors = keep_old or items.generation > 2
        there = {
            point.id: point
            for point in self.client.retrieve(self.name, points, with_payload=True, with_vectors=with_vectors)
        }
        missing = [name for name, point in zip(items.ids, points, strict=True) if point not in there]
        if missing:
            raise GalleryError(f"{self.url}: no item {missing[0]!r} to replace")
        vectors, payloads = [], []
        for point, vector in zip(points, items.vectors, strict=True):
            carried = dict(there[point].vector or {}) if with_vectors else {}
            if not keep_old:
                carried.pop(f"g{there[point].payload['generation']}", None)
            vectors.append({**carried, f"g{items.generation}": vector.tolist()})
            payloads.append({**there[point].payload, "generation": items.generation})
        self._upsert(points, vectors, payloads, len(points))

    @translated
    def search(self, queries: Mapping[int, Floats], k: int) -> dict[int, Nearest]:
        nearest = {}
        for number in sorted(queries):
            requests = [
                self.models.QueryRequest(
                    query=row.tolist(), using=f"g{number}", filter=self._of(number), limit=k, with_payload=["id"]
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
    def counts(self) -> dict[int, int]:
        counts = {
            number: self.client.count(self.name, count_filter=self._of(number), exact=True).count
            for number in sorted(self._dims())
        }
        return {number: count for number, count in counts.items() if count}

    def ids(self, generation: int, size: int = 8192) -> Iterator[list[str]]:
        order, seen = self.models.OrderBy(key="seq", start_from=0), set[str]()
        while points := [
            one
            for one in self.connection.page(self.name, self._of(generation), order, size + len(seen))
            if one.id not in seen
        ]:
            yield [point.payload["id"] for point in points]
            last = points[-1].payload["seq"]
            order = self.models.OrderBy(key="seq", start_from=last)
            seen = {point.id for point in points if point.payload["seq"] == last}

    @translated
    def sample(self, count: int, seed: int) -> list[str]:
        total = self._total()

        def look_up(numbers: list[int]) -> dict[int, str]:
            known = {}
            for start in range(0, len(numbers), BATCH):
                some = self.models.MatchAny(any=numbers[start : start + BATCH])
                wanted = self.models.Filter(must=[self.models.FieldCondition(key="seq", match=some)])
                points, _ = self.client.scroll(self.name, wanted, limit=BATCH, with_payload=True)
                known.update({point.payload["seq"]: point.payload["id"] for point in points})
            return known

        return sampled(0, total - 1, count, seed, look_up) if total else []

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
        points = self.client.retrieve(self.name, [point_id(name) for name in ids], with_payload=True)
        return {point.payload["id"]: point.payload["payload"] for point in points}

    def scan(self, size: int) -> Iterator[ItemBatch]:
        for points in self.connection.scroll(self.name, size, None, with_vectors=True):
            yield from grouped(points, payloads=False)

    @translated
    def count_hits(self, hits: Mapping[str, int]) -> None:
        # A new point for each count: nothing is read and written back, so none is lost.
        self._write_document(str(uuid.uuid4()), {"hits": [[name, count] for name, count in hits.items()]})

    def hits(self) -> Iterator[tuple[str, int]]:
        missing = self.models.IsEmptyCondition(is_empty=self.models.PayloadField(key="hits"))
        total: Counter[str] = Counter()
        for points in self.connection.scroll(
            self.documents, BATCH, self.models.Filter(must_not=[missing]), with_vectors=False
        ):
            for point in points:
                for name, count in point.payload["hits"]:
                    total[name] += count
        yield from total.most_common()

    @translated
    def restore(self, generation: int) -> int:
        newer = self.models.Filter(
            must=[self.models.FieldCondition(key="generation", range=self.models.Range(gt=generation))]
        )
        missing, points, vectors, payloads = 0, [], [], []
        for point in (
            point for page in self.connection.scroll(self.name, BATCH, newer, with_vectors=True) for point in page
        ):
            kept = {name: vector for name, vector in point.vector.items() if int(name[1:]) <= generation}
            if not kept:
                missing += 1
                continue
            points.append(point.id)
            vectors.append(kept)
            payloads.append({**point.payload, "generation": max(int(name[1:]) for name in kept)})
        if not missing:
            self._upsert(points, vectors, payloads, BATCH)
        return missing

    @translated
    def compact(self, *, forget_kept: bool) -> None:
        """Qdrant rebuilds its indexes itself, and vectors that nobody asked to keep went with their replacement."""
        numbers = set(self._dims()) if forget_kept else set()
        for number in numbers:
            others = [f"g{other}" for other in numbers - {number}]
            if others:
                self.client.delete_vectors(self.name, others, self._of(number), wait=True)

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Local mode: a lock on the folder. A server: a lease that its owner renews, and that ends with it."""
        if not self.connection.folder:
            return lease(self)
        return folder_lock(self.connection.folder / "nobackfill.lock", self.url)

    def close(self) -> None:
        self.connection.close()

    def _total(self) -> int:
        return int(self.client.count(self.name, exact=True).count)

    def _dims(self) -> dict[int, int]:
        vectors = self.client.get_collection(self.name).config.params.vectors or {}
        return {int(name[1:]): int(params.size) for name, params in vectors.items()}

    def _of(self, generation: int) -> Filter:
        match = self.models.MatchValue(value=generation)
        return self.models.Filter(must=[self.models.FieldCondition(key="generation", match=match)])

    def _write_document(self, point: str, payload: dict[str, object]) -> None:
        made = self.models.PointStruct(id=point, vector=[1.0], payload=payload)
        self.client.upsert(self.documents, [made], wait=True)

    def _upsert(
        self, points: list[str], vectors: list[NamedVectors], payloads: list[dict[str, object]], size: int
    ) -> None:
        """Upserting twice changes nothing, so a request that got no answer is made again."""
        from qdrant_client.http.exceptions import ResponseHandlingException

        made = [
            self.models.PointStruct(id=point, vector=vector, payload=payload)
            for point, vector, payload in zip(points, vectors, payloads, strict=True)
        ]
        for start in range(0, len(made), size):
            request = functools.partial(self.client.upsert, self.name, made[start : start + size], wait=True)
            with_retries(request, TRIES, errors=ResponseHandlingException)
