"""Writes to Qdrant that heed each other: a point is changed only if its version is the one that was read.

Qdrant has no transactions. Each write leaves a mark of its own on the point; where the mark is missing afterwards,
another write came between, and this one is made again from what is there now.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from nobackfill.errors import GalleryError
from nobackfill.gallery.retries import with_retries
from nobackfill.gallery.stores.base import ItemBatch, Payload
from nobackfill.gallery.stores.qdrant_connection import point_id
from nobackfill.gallery.stores.qdrant_filters import searchable

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import FieldCondition, Filter, PointStruct, Record

NamedVectors = dict[str, list[float]]
BATCH = 256  # points a request
TRIES = 4  # of a request that got no answer
ROUNDS = 50  # of a write that others come between


class PointWriter:
    """Changes the points of a gallery.

    Args:
        client: of Qdrant.
        models: its module of that name.
        name: of the collection of items; `documents` of that of documents.
        url: for messages.
    """

    def __init__(self, client: QdrantClient, models: ModuleType, name: str, documents: str, url: str) -> None:
        self.client, self.models, self.name, self.documents, self.url = client, models, name, documents, url

    def upsert(self, items: ItemBatch, first: int) -> None:
        """See `Store.upsert`; new items are numbered from `first`."""
        rows = zip(items.payloads, items.vectors, range(first, first + len(items.ids)), strict=True)
        left = dict(zip(items.ids, rows, strict=True))
        for _ in range(ROUNDS):
            there, gone = self.there(list(left)), self.gone(list(left))
            mark, groups = uuid.uuid4().hex, dict[int, list["PointStruct"]]()
            for name, (payload, vector, seq) in left.items():
                point = there.get(name)
                version = point.payload["version"] if point else 0
                made = self.point(
                    name,
                    {f"g{items.generation}": vector.tolist()},
                    generation=items.generation,
                    seq=point.payload["seq"] if point else seq,
                    version=(version or gone.get(name, 0)) + 1,
                    mark=mark,
                    payload=payload,
                )
                groups.setdefault(version, []).append(made)
            for version, points in groups.items():
                self.send(points, version)
            marked = self.marked(list(left), mark)
            left = {name: rest for name, rest in left.items() if name not in marked}
            if not left:
                return
        raise self._contended()

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        """See `Store.set_payloads`."""
        left, done = dict(payloads), 0
        for _ in range(ROUNDS):
            there, mark = self.there(list(left)), uuid.uuid4().hex
            for name, point in there.items():
                version = point.payload["version"]
                changed = {"payload": dict(left[name]), **searchable(left[name]), "version": version + 1, "mark": mark}
                self.client.set_payload(self.name, changed, points=self.of_version([name], version), wait=True)
            marked = self.marked(list(there), mark)
            done += len(marked)
            left = {name: left[name] for name in there if name not in marked}
            if not left:
                return done
        raise self._contended()

    def delete(self, ids: Sequence[str]) -> int:
        """See `Store.delete`; hits stay."""
        done = 0
        left = list(ids)
        for _ in range(ROUNDS):
            there = self.there(left)
            if not there:
                return done
            notes = [
                self.models.PointStruct(
                    id=point_id(f"gone:{name}"), vector=[1.0], payload={"gone": point.payload["version"]}
                )
                for name, point in there.items()
            ]
            self.client.upsert(self.documents, notes, wait=True)
            for version in {point.payload["version"] for point in there.values()}:
                names = [name for name, point in there.items() if point.payload["version"] == version]
                selector = self.models.FilterSelector(filter=self.of_version(names, version))
                self.client.delete(self.name, selector, wait=True)
            left = list(self.there(list(there)))
            done += len(there) - len(left)
        raise self._contended()

    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        """See `Store.replace`."""
        # From the third generation on a point may carry vectors that were kept before.
        there = self.there(items.ids, with_vectors=keep_old or items.generation > 2)
        versions = items.versions or [there[name].payload["version"] if name in there else 0 for name in items.ids]
        mark, groups = uuid.uuid4().hex, dict[tuple[int, int], list["PointStruct"]]()
        for name, vector, version in zip(items.ids, items.vectors, versions, strict=True):
            point = there.get(name)
            if point is None or point.payload["version"] != version or point.payload["generation"] >= items.generation:
                continue
            held = point.payload["generation"]
            carried = {key: each for key, each in dict(point.vector or {}).items() if keep_old or key != f"g{held}"}
            payload = {**point.payload, "generation": items.generation, "mark": mark}
            vectors = {**carried, f"g{items.generation}": vector.tolist()}
            made = self.models.PointStruct(id=point_id(name), vector=vectors, payload=payload)
            groups.setdefault((version, held), []).append(made)
        for (version, held), points in groups.items():
            self.send(points, version, held, len(points))
        marked = self.marked(items.ids, mark)
        return [name for name in items.ids if name not in marked]

    def restore(self, points: Sequence[Record], generation: int) -> None:
        """Put back what was kept of this generation or older, where something was."""
        groups = dict[tuple[int, int], list["PointStruct"]]()
        for point in points:
            vectors = kept(point, generation)
            if vectors:
                payload = {**point.payload, "generation": max(int(name[1:]) for name in vectors)}
                made = self.models.PointStruct(id=point.id, vector=vectors, payload=payload)
                groups.setdefault((point.payload["version"], point.payload["generation"]), []).append(made)
        for (version, held), some in groups.items():
            self.send(some, version, held)

    def send(self, points: list[PointStruct], version: int, held: int | None = None, size: int = BATCH) -> None:
        """Write points whose version is this one (0: that are not there) and whose generation is `held`.

        Writing twice changes nothing, so a request that got no answer is made again.
        """
        from qdrant_client.http.exceptions import ResponseHandlingException

        modes = self.models.UpdateMode
        for start in range(0, len(points), size):
            some = points[start : start + size]
            conditions = [self.field("version", version)] + ([] if held is None else [self.field("generation", held)])
            request = functools.partial(
                self.client.upsert,
                self.name,
                some,
                wait=True,
                update_mode=modes.UPDATE_ONLY if version else modes.INSERT_ONLY,
                update_filter=self.models.Filter(must=conditions) if version else None,
            )
            with_retries(request, TRIES, errors=ResponseHandlingException)

    def point(
        self, name: str, vectors: NamedVectors, *, generation: int, seq: int, version: int, mark: str, payload: Payload
    ) -> PointStruct:
        """A point that holds an item."""
        carried = {
            "id": name,
            "generation": generation,
            "seq": seq,
            "version": version,
            "mark": mark,
            "payload": dict(payload),
            **searchable(payload),
        }
        return self.models.PointStruct(id=point_id(name), vector=vectors, payload=carried)

    def there(self, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """The points of these items, as far as there are any."""
        found = {}
        for start in range(0, len(ids), BATCH):
            some = [point_id(name) for name in ids[start : start + BATCH]]
            for point in self.client.retrieve(self.name, some, with_payload=True, with_vectors=with_vectors):
                found[str(point.payload["id"])] = point
        return found

    def gone(self, ids: Sequence[str]) -> dict[str, int]:
        """Version of those of these items that were removed once."""
        name_of = {point_id(f"gone:{name}"): name for name in ids}
        points = self.client.retrieve(self.documents, list(name_of), with_payload=True)
        return {name_of[str(point.id)]: int(point.payload["gone"]) for point in points}

    def marked(self, ids: Sequence[str], mark: str) -> set[str]:
        """Those of these items whose last write is the one with this mark."""
        return {name for name, point in self.there(ids).items() if point.payload["mark"] == mark}

    def of_version(self, ids: Sequence[str], version: int) -> Filter:
        """The points of these items that have this version."""
        points = self.models.HasIdCondition(has_id=[point_id(name) for name in ids])
        return self.models.Filter(must=[points, self.field("version", version)])

    def field(self, key: str, value: int) -> FieldCondition:
        """A condition on a number of ours."""
        return self.models.FieldCondition(key=key, match=self.models.MatchValue(value=value))

    def _contended(self) -> GalleryError:
        return GalleryError(f"{self.url}: others changed the same items {ROUNDS} times meanwhile; try again")


def kept(point: Record, generation: int) -> NamedVectors:
    """A point's vectors of this generation or older."""
    vectors: NamedVectors = point.vector
    return {name: vector for name, vector in vectors.items() if int(name[1:]) <= generation}
