"""A gallery in a collection of Qdrant that somebody else made, fills and reads; see `adopted_qdrant_layout`.

Points belong to the application: it adds, changes and removes them with its own client, and what it does counts at
once. A gallery only writes named vectors of later generations. Its documents lie in a collection beside.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter as Where
from nobackfill.gallery.filters import matches
from nobackfill.gallery.formats import parse_document
from nobackfill.gallery.stores.adopted_items import AdoptedItems
from nobackfill.gallery.stores.adopted_qdrant_layout import (
    ADOPTION,
    NUMBERS,
    Adoption,
    begun,
    generations_of,
    grouped,
    later_generations,
    named_vectors,
    point_of,
    shown,
    sketch_name,
    sketches,
    vector_name,
    version,
)
from nobackfill.gallery.stores.adopted_qdrant_search import Searcher, narrowed
from nobackfill.gallery.stores.base import Floats, ItemBatch, Nearest, Payload
from nobackfill.gallery.stores.qdrant_connection import translated
from nobackfill.gallery.stores.qdrant_documents import QdrantDocuments
from nobackfill.gallery.stores.qdrant_writes import BATCH

if TYPE_CHECKING:
    from qdrant_client.models import Filter, Record


class AdoptedQdrantStore(QdrantDocuments, AdoptedItems):
    """Of one collection."""

    whose = "points of an adopted collection"
    SUFFIX: ClassVar[str] = "__nobackfill_adopted"

    @property
    def adoption(self) -> Adoption:
        """What was agreed; raises `GalleryError` if the collection is adopted no more."""
        data = self.read(ADOPTION)
        if data is None:
            raise GalleryError(f"{self.url}: no gallery there any more: it was abandoned, or its documents are gone")
        return parse_document(Adoption, data, f"{self.url}: its adoption")

    @translated
    def drop(self, *, leave_new: bool = False) -> None:
        """Takes away what the gallery made; with `leave_new` the vectors of the newest generation that has any stay."""
        for name in self._going(leave_new=leave_new):
            self.client.delete_vector_name(self.name, name)
        self.client.delete_collection(self.documents)
        if self.connection.folder:
            for path in self.connection.folder.glob("nobackfill*.lock"):
                path.unlink(missing_ok=True)

    @translated
    def undo_statements(self, *, leave_new: bool = False) -> list[str]:
        """What `drop` does, a line each."""
        going = self._going(leave_new=leave_new)
        return [f"DELETE /collections/{self.name}/vectors/{name}" for name in going] + [
            f"DELETE /collections/{self.documents}"
        ]

    @translated
    def add_generation(self, number: int, dim: int) -> None:
        if number == 1:
            return
        params = self._params()
        wanted = {vector_name(number): dim, sketch_name(number): NUMBERS}
        if all(params.get(name) == size for name, size in wanted.items()):
            return
        self._remove(number, params)  # of a generation that was rolled back, or half made
        for name, size in wanted.items():
            dense = self.models.DenseVectorConfig(size=size, distance=self.models.Distance.DOT)
            self.client.create_vector_name(self.name, name, self.models.DenseVectorNameConfig(dense=dense), wait=True)

    @translated
    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        own = self.adoption.vector
        points = self._points(ids, [own], payload=False)
        return {name: version(point.vector[own]) for name, point in points.items() if own in (point.vector or {})}

    @translated
    def replace(self, items: ItemBatch, *, keep_old: bool) -> list[str]:
        adoption, later = self.adoption, self._later()
        points = self._points(items.ids, self._checked(adoption, later), payload=False)
        numbers = dict(zip(points, generations_of(adoption, later, named_vectors(points.values())), strict=True))
        writes = []
        for place, name in enumerate(items.ids):
            held = numbers.get(name)
            if held is None or held >= items.generation:
                continue
            own = points[name].vector[adoption.vector]
            if items.versions and version(own) != items.versions[place]:
                continue
            # The sketch of the vector that was read: if the application changes it now, the point is old again.
            both = {
                vector_name(items.generation): items.vectors[place].tolist(),
                sketch_name(items.generation): sketches([own])[0].tolist(),
            }
            writes.append(self.models.PointVectors(id=points[name].id, vector=both))
        for start in range(0, len(writes), BATCH):
            self._send(writes[start : start + BATCH])
        tried = {str(each.id) for each in writes}
        now = self._points(sorted(tried), self._checked(adoption, later), payload=False)
        made = dict(zip(now, generations_of(adoption, later, named_vectors(now.values())), strict=True))
        written = {name for name in tried if made.get(name) == items.generation}
        between = [
            name for other in later if other < items.generation for name in (vector_name(other), sketch_name(other))
        ]
        if written and between and not keep_old:
            self.client.delete_vectors(self.name, between, [points[name].id for name in sorted(written)], wait=True)
        return [name for name in items.ids if name not in written]

    @translated
    def search(self, queries: Mapping[int, Floats], k: int, where: Where | None = None) -> dict[int, Nearest]:
        exact = None if self.connection.folder else self.models.SearchParams(exact=True)
        later = self._later()
        searcher = Searcher(self.client, self.models, self.name, self.adoption, later, exact)
        return {number: searcher.nearest(number, queries[number], k, where) for number in sorted(queries)}

    @translated
    def counts(self, where: Where | None = None) -> dict[int, int]:
        adoption, later = self.adoption, self._later()
        counts: dict[int, int] = {}
        wanted = self._with_own(adoption)
        if where is None:  # points without new vectors need no look
            has = [self.models.HasVectorCondition(has_vector=vector_name(number)) for number in later]
            plain = self._with_own(adoption, must_not=has)
            counts[1] = self.client.count(self.name, count_filter=plain, exact=True).count
            wanted = self._with_own(adoption, should=has)
        if where is not None or later:
            for points, numbers in self._pages(adoption, later, wanted, where):
                for _, number in zip(points, numbers, strict=True):
                    counts[number] = counts.get(number, 0) + 1
        return {number: counts[number] for number in sorted(counts) if counts[number]}

    def ids(self, generation: int, size: int = 8192, where: Where | None = None) -> Iterator[list[str]]:
        adoption = self.adoption
        held: list[str] = []
        for points, numbers in self._pages(adoption, self._later(), self._with_own(adoption, where=where), where):
            held += [str(point.id) for point, number in zip(points, numbers, strict=True) if number == generation]
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
        if held:
            yield held

    def sample(self, count: int, seed: int) -> list[str]:
        wanted = self._with_own(self.adoption)
        pages = self.connection.scroll(self.name, BATCH, wanted, with_vectors=False)
        names = (str(point.id) for points in pages for point in points)
        drawn = heapq.nsmallest(
            count,
            ((hashlib.sha256(f"{seed}\0{name}".encode()).digest(), place, name) for place, name in enumerate(names)),
        )
        return [name for _, _, name in sorted(drawn, key=lambda each: each[1])]

    @translated
    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        adoption, later = self.adoption, self._later()
        points = list(self._points(ids, None).values())
        return grouped(adoption, points, generations_of(adoption, later, named_vectors(points)), payloads=True)

    @translated
    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        adoption = self.adoption
        return {name: shown(adoption, point.payload) for name, point in self._points(ids, []).items()}

    def scan(self, size: int) -> Iterator[ItemBatch]:
        adoption, later = self.adoption, self._later()
        for points in self.connection.scroll(self.name, size, self._with_own(adoption), with_vectors=True):
            numbers = generations_of(adoption, later, named_vectors(points))
            yield from grouped(adoption, points, numbers, payloads=False)

    @translated
    def restore(self, generation: int, *, leave_new: bool = False) -> int:
        """New vectors are removed by name, at once; the application's own have stayed."""
        params = self._params()
        for number in begun(params):
            if number > generation:
                self._remove(number, params)
                if vector_name(number) in params:  # else the caller knows how large it has to be
                    self.add_generation(number, params[vector_name(number)])
        return 0

    @translated
    def compact(self, *, forget_kept: bool) -> None:
        """Removes vectors that no search finds: of generations between the first and the item's, and outdated ones."""
        adoption, later = self.adoption, self._later()
        for number in later if forget_kept else ():
            has = self._with_own(adoption, also=[self.models.HasVectorCondition(has_vector=vector_name(number))])
            for points, numbers in self._pages(adoption, later, has, None):
                unused = [point.id for point, each in zip(points, numbers, strict=True) if each != number]
                if unused:
                    names = [vector_name(number), sketch_name(number)]
                    self.client.delete_vectors(self.name, names, unused, wait=True)

    def _params(self) -> dict[str, int]:
        """Size of each named vector of the collection."""
        vectors = self.client.get_collection(self.name).config.params.vectors or {}
        return {name: int(params.size) for name, params in vectors.items()}

    def _later(self) -> list[int]:
        return later_generations(self._params())

    def _remove(self, number: int, params: Collection[str]) -> None:
        """The named vectors of a generation. Without sketches no point is of it: whatever comes next may be killed."""
        for name in (sketch_name(number), vector_name(number)):
            if name in params:
                self.client.delete_vector_name(self.name, name)

    def _going(self, *, leave_new: bool) -> list[str]:
        params = self._params()
        numbers = begun(params)
        names = [name for number in numbers for name in (sketch_name(number), vector_name(number)) if name in params]
        if not leave_new:
            return names
        whole = later_generations(params) or [number for number in numbers if vector_name(number) in params]
        # One that was just begun, or forgotten, has room and no vectors.
        stays = next((vector_name(number) for number in reversed(whole) if self._has_vectors(number)), "")
        # The sketch of what stays goes last: whatever is killed before, it is seen to be whole.
        return sorted((name for name in names if name != stays), key=lambda name: name.startswith(f"{stays}_"))

    def _has_vectors(self, number: int) -> bool:
        """Whether any point has a vector of this generation."""
        has = self.models.HasVectorCondition(has_vector=vector_name(number))
        points, _ = self.client.scroll(self.name, self.models.Filter(must=[has]), limit=1, with_payload=False)
        return bool(points)

    def _with_own(
        self, adoption: Adoption, *, where: Where | None = None, also: Sequence[object] = (), **more: object
    ) -> Filter:
        """Points that have a vector of the application."""
        has = self.models.HasVectorCondition(has_vector=adoption.vector)
        return self.models.Filter(must=[has, *also, *narrowed(self.models, adoption, where)], **more)

    def _checked(self, adoption: Adoption, later: Sequence[int]) -> list[str]:
        """The vectors that say of which generation a point is."""
        return [adoption.vector, *map(sketch_name, later)]

    def _points(self, ids: Sequence[str], vectors: list[str] | None, *, payload: bool = True) -> dict[str, Record]:
        """The points of these items with these vectors (None: all), in the order of the ids."""
        wanted = {name: point for name in ids if (point := point_of(name)) is not None}
        found: dict[str, Record] = {}
        for start in range(0, len(wanted), BATCH):
            some = list(wanted.values())[start : start + BATCH]
            named = True if vectors is None else vectors or False
            for point in self.client.retrieve(self.name, some, with_payload=payload, with_vectors=named):
                found[str(point.id)] = point
        return {name: found[name] for name in wanted if name in found}

    def _pages(
        self, adoption: Adoption, later: Sequence[int], wanted: Filter, where: Where | None
    ) -> Iterator[tuple[list[Record], list[int]]]:
        """All points that are wanted, with their generations, some at a time."""
        checked = self._checked(adoption, later)
        for points in self.connection.scroll(self.name, BATCH, wanted, with_vectors=checked):
            kept = [point for point in points if where is None or matches(where, shown(adoption, point.payload))]
            numbers = generations_of(adoption, later, named_vectors(kept))
            pairs = [(point, number) for point, number in zip(kept, numbers, strict=True) if number is not None]
            yield [point for point, _ in pairs], [number for _, number in pairs]

    def _send(self, writes: list[object]) -> None:
        """Points that are gone are left out; the others are written all the same."""
        from qdrant_client.http.exceptions import UnexpectedResponse

        try:
            self.client.update_vectors(self.name, writes, wait=True)
        except KeyError:  # local mode
            return
        except UnexpectedResponse as error:
            if error.status_code != 404:
                raise
