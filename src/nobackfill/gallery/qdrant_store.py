"""A gallery in Qdrant: a collection with one named vector a generation, `g1`, `g2`, …, so that it is upgraded in place.

A point carries {id, generation, seq, payload} and the vector of its generation (with `--keep-old` the older ones too).
One upsert replaces a point with all it has, so an exchange is seen whole. Generations are searched oldest first: an
item that moves meanwhile is seen twice rather than not at all, and the newer sight counts. Manifest and journal are
points of the collection `<name>__nobackfill`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock, Timeout

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import Floats
from nobackfill.gallery.store import Found, Items, Payload, UnreachableError, lock_lost, without_credentials

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
NAMESPACE = uuid.UUID("6c1f8f0e-53a5-4a52-9a0b-0f5a7c1d2e3b")  # point ids are made of item ids by it
LEASE = 30.0  # seconds until a server takes the lock of a silent owner away
BATCH = 256  # points a request
TRIES = 4


def _translated(method: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Errors of the server in one line, without address or key."""

    @functools.wraps(method)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Value:
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse  # noqa: PLC0415

        url = getattr(arguments[0], "url", "qdrant")
        try:
            return method(*arguments, **options)
        except ResponseHandlingException as error:
            raise UnreachableError(f"{url}: {' '.join(str(error.source).split())[:160]}") from None
        except UnexpectedResponse as error:
            kind = UnreachableError if error.status_code in (429, 502, 503, 504) else GalleryError
            raise kind(f"{url}: answered {error.status_code} {error.reason_phrase}") from None

    return call


class QdrantStore:
    """See the module; `qdrant:DIR` is Qdrant's local mode, `qdrant+http://host:port#collection` a server."""

    def __init__(self, url: str) -> None:
        try:
            from qdrant_client import models  # noqa: PLC0415
        except ImportError as error:
            raise GalleryError("qdrant: needs its extra: pip install 'nobackfill[qdrant]'") from error
        self.models: Any = models
        self.url = without_credentials(url)
        scheme, _, rest = url.partition(":")
        self.folder: Path | None = Path(rest) if scheme == "qdrant" else None
        self.address = url
        self.name = "gallery" if self.folder else urlsplit(url).fragment
        if not self.name:
            raise GalleryError(f"{self.url}: expected qdrant+http://host:port#collection")
        self.documents = f"{self.name}__nobackfill"
        self._client: Any = None

    @_translated
    def read(self, name: str) -> bytes | None:  # noqa: D102
        if self.folder and not self.folder.is_dir():
            return None
        if not self._open().collection_exists(self.documents):
            return None
        found = self._open().retrieve(self.documents, [_point(name)], with_payload=True)
        return base64.b64decode(found[0].payload["data"]) if found else None

    @_translated
    def write(self, name: str, data: bytes | None) -> None:  # noqa: D102
        if data is None:
            self._open().delete(self.documents, [_point(name)], wait=True)
            return
        payload = {"name": name, "data": base64.b64encode(data).decode()}
        point = self.models.PointStruct(id=_point(name), vector=[1.0], payload=payload)
        self._open().upsert(self.documents, [point], wait=True)

    @_translated
    def create(self) -> None:  # noqa: D102
        if self.folder and self.folder.is_dir() and any(self.folder.iterdir()) and self._client is None:
            raise GalleryError(f"{self.url}: exists and is not empty; choose another folder or remove it")
        for name in (self.name, self.documents):
            if self._open().collection_exists(name):
                raise GalleryError(f"{self.url}: the collection {name!r} exists; choose another name or delete it")
        self._open().create_collection(self.name, vectors_config={})
        self._open().create_collection(
            self.documents, vectors_config=self.models.VectorParams(size=1, distance=self.models.Distance.DOT)
        )
        if not self.folder:
            for field, kind in (("generation", "integer"), ("id", "keyword")):
                self._open().create_payload_index(self.name, field, kind, wait=True)

    @_translated
    def add_generation(self, number: int, dim: int) -> None:  # noqa: D102
        held = self._dims()
        if held.get(number) == dim:
            return
        if number in held:  # of a generation that was rolled back
            self._open().delete_vector_name(self.name, f"g{number}")
        params = self.models.DenseVectorConfig(size=dim, distance=self.models.Distance.DOT)
        named = self.models.DenseVectorNameConfig(dense=params)
        self._open().create_vector_name(self.name, f"g{number}", named, wait=True)

    @_translated
    def insert(self, items: Items) -> None:  # noqa: D102
        points = [_point(name) for name in items.ids]
        there = self._open().retrieve(self.name, points, with_payload=["id"])
        if there or len(set(points)) < len(points):
            name = there[0].payload["id"] if there else "twice in one batch"
            raise GalleryError(f"{self.url}: item {name!r} is there already; ids are unique in a gallery")
        first = self._open().count(self.name, exact=True).count
        payloads = [
            {"id": name, "generation": items.generation, "seq": first + place, "payload": dict(payload)}
            for place, (name, payload) in enumerate(zip(items.ids, items.payloads, strict=True))
        ]
        vectors = [{f"g{items.generation}": vector.tolist()} for vector in items.vectors]
        self._upsert(points, vectors, payloads, BATCH)

    @_translated
    def replace(self, items: Items, *, keep_old: bool) -> None:  # noqa: D102
        points = [_point(name) for name in items.ids]
        there = {
            point.id: point
            for point in self._open().retrieve(self.name, points, with_payload=True, with_vectors=keep_old)
        }
        missing = [name for name, point in zip(items.ids, points, strict=True) if point not in there]
        if missing:
            raise GalleryError(f"{self.url}: no item {missing[0]!r} to replace")
        vectors, payloads = [], []
        for point, vector in zip(points, items.vectors, strict=True):
            old = there[point].vector if keep_old else {}
            vectors.append({**(old or {}), f"g{items.generation}": vector.tolist()})
            payloads.append({**there[point].payload, "generation": items.generation})
        self._upsert(points, vectors, payloads, len(points))

    @_translated
    def search(self, queries: Mapping[int, Floats], k: int) -> dict[int, Found]:  # noqa: D102
        found = {}
        for number in sorted(queries):
            requests = [
                self.models.QueryRequest(
                    query=row.tolist(),
                    using=f"g{number}",
                    filter=self._of(number),
                    limit=k,
                    with_payload=["id"],
                )
                for row in queries[number]
            ]
            answers = self._open().query_batch_points(self.name, requests)
            found[number] = Found(
                [[point.payload["id"] for point in answer.points] for answer in answers],
                [np.array([point.score for point in answer.points], np.float32) for answer in answers],
            )
        return found

    @_translated
    def counts(self) -> dict[int, int]:  # noqa: D102
        held = {
            number: self._open().count(self.name, count_filter=self._of(number), exact=True).count
            for number in sorted(self._dims())
        }
        return {number: count for number, count in held.items() if count}

    @_translated
    def ids(self, generation: int) -> list[str]:  # noqa: D102
        found = [
            (point.payload["seq"], point.payload["id"])
            for point in self._scroll(4096, self._of(generation), with_vectors=False)
        ]
        return [name for _, name in sorted(found)]

    @_translated
    def fetch(self, ids: Sequence[str]) -> list[Items]:  # noqa: D102
        points = [_point(name) for name in ids]
        found = []
        for start in range(0, len(points), BATCH):
            some = points[start : start + BATCH]
            found += self._open().retrieve(self.name, some, with_payload=True, with_vectors=True)
        return _grouped(found)

    @_translated
    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:  # noqa: D102
        points = [_point(name) for name in ids]
        found = self._open().retrieve(self.name, points, with_payload=True)
        return {point.payload["id"]: point.payload["payload"] for point in found}

    def scan(self, size: int) -> Iterator[Items]:  # noqa: D102
        page: list[Any] = []
        for point in self._scroll(size, None, with_vectors=True):
            page.append(point)
            if len(page) == size:
                yield from _grouped(page)
                page = []
        yield from _grouped(page)

    @_translated
    def restore(self, generation: int) -> int:  # noqa: D102
        newer = self.models.Filter(
            must=[self.models.FieldCondition(key="generation", range=self.models.Range(gt=generation))]
        )
        missing, points, vectors, payloads = 0, [], [], []
        for point in self._scroll(BATCH, newer, with_vectors=True):
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

    @_translated
    def compact(self) -> None:  # noqa: D102
        numbers = set(self._dims())
        for number in numbers:
            others = [f"g{other}" for other in numbers - {number}]
            if others:
                self._open().delete_vectors(self.name, others, self._of(number), wait=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """Local mode: a lock on the folder. A server: a lease that its owner renews, and that ends with it."""
        if self.folder:
            lock = FileLock(self.folder / "nobackfill.lock")
            try:
                lock.acquire(timeout=2)
            except Timeout:
                raise self._taken() from None
            try:
                yield lambda: None  # the system keeps it for as long as this process lives
            finally:
                lock.release()
            return
        with self._lease() as check:
            yield check

    def close(self) -> None:  # noqa: D102
        if self._client is not None:
            self._client.close()
            self._client = None

    def _open(self) -> Any:
        if self._client is not None:
            return self._client
        from qdrant_client import QdrantClient  # noqa: PLC0415

        if self.folder:
            try:
                self._client = QdrantClient(path=str(self.folder))
            except RuntimeError as error:
                raise GalleryError(
                    f"{self.url}: another process has it open; local mode serves one at a time"
                ) from error
            return self._client
        try:
            parts = urlsplit(self.address)
            port = parts.port or 6333
        except ValueError:  # its message would quote what may be the key
            raise GalleryError(
                f"{self.url}: this address cannot be read; write special characters of the key as %XX"
            ) from None
        self._client = QdrantClient(
            url=f"{parts.scheme.removeprefix('qdrant+')}://{parts.hostname}",
            port=port,
            api_key=parts.password or parts.username or os.environ.get("QDRANT_API_KEY"),
            prefix=parts.path.strip("/") or None,
            timeout=60,
            check_compatibility=False,
        )
        return self._client

    def _dims(self) -> dict[int, int]:
        vectors = self._open().get_collection(self.name).config.params.vectors or {}
        return {int(name[1:]): int(params.size) for name, params in vectors.items()}

    def _of(self, generation: int) -> Any:
        match = self.models.MatchValue(value=generation)
        return self.models.Filter(must=[self.models.FieldCondition(key="generation", match=match)])

    def _upsert(self, points: list[Any], vectors: list[Any], payloads: list[Any], size: int) -> None:
        made = [
            self.models.PointStruct(id=point, vector=vector, payload=payload)
            for point, vector, payload in zip(points, vectors, payloads, strict=True)
        ]
        for start in range(0, len(made), size):
            self._patient_upsert(made[start : start + size])

    def _patient_upsert(self, points: list[Any]) -> None:
        """Upserting twice changes nothing, so a request that got no answer is made again."""
        from qdrant_client.http.exceptions import ResponseHandlingException  # noqa: PLC0415

        for attempt in range(TRIES):
            try:
                self._open().upsert(self.name, points, wait=True)
                return
            except ResponseHandlingException:
                if attempt == TRIES - 1:
                    raise
                time.sleep(0.5 * 2**attempt)

    def _scroll(self, size: int, wanted: Any, *, with_vectors: bool) -> Iterator[Any]:
        offset = None
        while True:
            points, offset = self._open().scroll(
                self.name, wanted, limit=size, offset=offset, with_payload=True, with_vectors=with_vectors
            )
            yield from points
            if offset is None:
                return

    @contextlib.contextmanager
    def _lease(self) -> Iterator[Callable[[], None]]:
        owner, ended = uuid.uuid4().hex, threading.Event()

        def renew() -> None:
            self.write("lease", json.dumps({"owner": owner, "until": time.time() + LEASE}).encode())

        held = json.loads(self.read("lease") or b"{}")
        if held and held["until"] > time.time():
            raise self._taken()
        renew()
        time.sleep(0.2)  # had another one written at the same moment, the later one stays
        if json.loads(self.read("lease") or b"{}").get("owner") != owner:
            raise self._taken()

        def ours() -> bool:
            return bool(json.loads(self.read("lease") or b"{}").get("owner") == owner)

        def keep() -> None:
            while not ended.wait(LEASE / 3):
                with contextlib.suppress(GalleryError):
                    if not ours():  # silent for too long: another one has it
                        return
                    renew()

        def check() -> None:
            if not ours():
                raise GalleryError(lock_lost(self.url))

        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        try:
            yield check
        finally:
            ended.set()
            keeper.join()
            with contextlib.suppress(GalleryError):
                if ours():
                    self.write("lease", None)

    def _taken(self) -> GalleryError:
        return GalleryError(f"{self.url}: another process is changing this gallery; wait for it to end")


def _point(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, name))


def _grouped(points: Sequence[Any]) -> list[Items]:
    groups: dict[int, list[Any]] = {}
    for point in points:
        groups.setdefault(int(point.payload["generation"]), []).append(point)
    return [
        Items(
            [point.payload["id"] for point in sorted_group],
            number,
            np.array([point.vector[f"g{number}"] for point in sorted_group], np.float32),
            [point.payload["payload"] for point in sorted_group],
        )
        for number, group in sorted(groups.items())
        for sorted_group in [sorted(group, key=lambda point: int(point.payload["seq"]))]
    ]
