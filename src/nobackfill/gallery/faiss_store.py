"""A gallery in a folder: vectors of record in parquet, searched by FAISS.

    items/000001.parquet     ids and payloads, in the order of insertion; an item's number is its place in all of them
    segments/000002.parquet  numbers and vectors of one generation; .faiss beside it where it is indexed
    state.json               which of these files count, in which order
    documents/…              manifest and journal

Files are never changed. A write adds new ones and then exchanges `state.json` by one rename, so a reader that holds a
state sees exactly that state. Of two segments with the same item the later one counts; `compact` writes each generation
anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import pydantic
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from nobackfill.errors import GalleryError
from nobackfill.files import atomic_file, write_text
from nobackfill.gallery.faiss_view import (
    Index,
    Segment,
    State,
    View,
    extended,
    faiss_module,
    items_of,
    moved,
    owner_of,
    read_segment,
    search_view,
)
from nobackfill.gallery.lineage import Floats
from nobackfill.gallery.store import Found, Items, Payload

Value = TypeVar("Value")
INDEXED = 1000  # rows from which an approximate index is worth building
RETRIES = 20  # to open a state while others compact it away
PATIENCE = 2.0  # seconds: a killed owner's lock is gone at once


class FaissStore:
    """See the module; `index` decides what `compact` builds for a generation of 1,000 items or more."""

    def __init__(self, folder: str, index: str = "flat") -> None:
        self.folder = Path(folder)
        self.url = f"faiss:{folder}"
        if index not in ("flat", "hnsw", "ivfpq"):
            raise GalleryError(f"--index {index!r}: expected flat, hnsw or ivfpq")
        self.index: Index = index  # type: ignore[assignment]
        self._view: View | None = None
        self._stamp: tuple[int, int] | None = None

    def read(self, name: str) -> bytes | None:  # noqa: D102
        path = self.folder / "documents" / quote(name, safe="")
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, data: bytes | None) -> None:  # noqa: D102
        path = self.folder / "documents" / quote(name, safe="")
        if data is None:
            path.unlink(missing_ok=True)
            return
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)

    def create(self) -> None:  # noqa: D102
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise GalleryError(f"{self.url}: exists and is not empty; choose another folder or remove it")
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("items", "segments", "documents"):
            try:
                (self.folder / name).mkdir()
            except FileExistsError:
                raise GalleryError(f"{self.url}: another process is creating a gallery there") from None
        self._commit(State(index=self.index))

    def add_generation(self, number: int, dim: int) -> None:  # noqa: D102
        state = self._state()
        if state.dims.get(number) != dim:
            self._commit(state.model_copy(update={"dims": {**state.dims, number: dim}}))

    def insert(self, items: Items) -> None:  # noqa: D102
        view = self._open()
        taken = [name for name in items.ids if name in view.places]
        if taken or len(set(items.ids)) < len(items.ids):
            name = taken[0] if taken else next(name for name in items.ids if items.ids.count(name) > 1)
            raise GalleryError(f"{self.url}: item {name!r} is there already; ids are unique in a gallery")
        state, first = view.state, len(view.owner)
        part = f"{state.last + 1:06d}.parquet"
        texts = [json.dumps(dict(payload)) for payload in items.payloads]
        _write_table(self.folder / "items" / part, {"id": items.ids, "payload": texts})
        numbers = np.arange(first, first + len(items.ids))
        segment = self._write_segment(f"{state.last + 2:06d}", items.generation, numbers, items.vectors)
        update = {
            "items": (*state.items, (part, len(items.ids))),
            "segments": (*state.segments, segment),
            "last": state.last + 2,
        }
        self._commit(state.model_copy(update=update), extended(view, items.ids, len(state.segments)))

    def replace(self, items: Items, *, keep_old: bool) -> None:  # noqa: ARG002, D102 (old segments stay until `compact`)
        view = self._open()
        missing = [name for name in items.ids if name not in view.places]
        if missing:
            raise GalleryError(f"{self.url}: no item {missing[0]!r} to replace")
        state = view.state
        numbers = np.fromiter((view.places[name] for name in items.ids), np.int64, len(items.ids))
        segment = self._write_segment(f"{state.last + 1:06d}", items.generation, numbers, items.vectors)
        update = {"segments": (*state.segments, segment), "last": state.last + 1}
        owner = view.owner.copy()
        owner[numbers] = len(state.segments)
        self._commit(state.model_copy(update=update), moved(view, owner))

    def search(self, queries: Mapping[int, Floats], k: int) -> dict[int, Found]:  # noqa: D102
        return self._read(lambda view: {number: search_view(view, number, rows, k) for number, rows in queries.items()})

    def counts(self) -> dict[int, int]:  # noqa: D102
        return dict(self._open().counts)

    def ids(self, generation: int) -> list[str]:  # noqa: D102
        return self._read(lambda view: _ids(view, generation))

    def fetch(self, ids: Sequence[str]) -> list[Items]:  # noqa: D102
        return self._read(lambda view: _fetched(view, ids))

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:  # noqa: D102
        def look(view: View) -> dict[str, Payload]:
            known = [name for name in ids if name in view.places]
            return dict(zip(known, view.payloads([view.places[name] for name in known]), strict=True))

        return self._read(look)

    def scan(self, size: int) -> Iterator[Items]:  # noqa: D102
        view = self._open()
        try:
            for position in range(len(view.state.segments)):
                numbers, vectors = view.rows(position)
                for start in range(0, len(numbers), size):
                    yield items_of(view, position, numbers[start : start + size], vectors[start : start + size])
        except FileNotFoundError:
            raise GalleryError(f"{self.url}: was compacted while it was read; try again") from None

    def restore(self, generation: int) -> int:  # noqa: D102
        view = self._open()
        segments = tuple(segment for segment in view.state.segments if segment.generation <= generation)
        old = owner_of(self.folder, segments, len(view.owner))
        if (old < 0).any():
            return int((old < 0).sum())
        self._commit(view.state.model_copy(update={"segments": segments}))
        return 0

    def compact(self) -> None:  # noqa: D102
        view = self._open()
        state, segments = view.state, []
        last = state.last
        for number in self.counts():
            parts = [view.rows(position) for position, one in enumerate(state.segments) if one.generation == number]
            numbers = np.concatenate([numbers for numbers, _ in parts])
            order = np.argsort(numbers, kind="stable")
            vectors = np.concatenate([vectors for _, vectors in parts])[order]
            last += 1
            index = state.index if len(numbers) >= INDEXED else "flat"
            segments.append(self._write_segment(f"{last:06d}", number, numbers[order], vectors, index))
        self._commit(state.model_copy(update={"segments": tuple(segments), "last": last}))
        named = {f"{segment.name}{suffix}" for segment in segments for suffix in (".parquet", ".faiss")}
        for path in (self.folder / "segments").iterdir():
            if path.name not in named:
                path.unlink()
        kept = {part for part, _ in state.items}
        for path in (self.folder / "items").iterdir():
            if path.name not in kept:  # of an insertion that was cut short
                path.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:  # noqa: D102
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            raise GalleryError(f"{self.url}: another process is changing this gallery; wait for it to end") from None
        try:
            yield lambda: None  # the system keeps it for as long as this process lives
        finally:
            lock.release()

    def close(self) -> None:  # noqa: D102
        self._view = None

    def _state(self) -> State:
        try:
            return State.model_validate_json((self.folder / "state.json").read_bytes())
        except FileNotFoundError:
            raise GalleryError(f"{self.url}: no gallery there; make one by `gallery create`") from None
        except pydantic.ValidationError as error:
            raise GalleryError(f"{self.url}: state.json is damaged: {error.errors()[0]['msg'].lower()}") from error

    def _open(self) -> View:
        """The present state; opened anew when another process has changed it."""
        try:
            found = (self.folder / "state.json").stat()
        except FileNotFoundError:
            raise GalleryError(f"{self.url}: no gallery there; make one by `gallery create`") from None
        stamp = (found.st_ino, found.st_mtime_ns)
        if self._view is None or self._stamp != stamp:
            for _ in range(RETRIES):
                state = self._state()
                try:
                    owner = owner_of(self.folder, state.segments, sum(rows for _, rows in state.items))
                    break
                except FileNotFoundError:  # compacted meanwhile: there is a newer state
                    continue
            else:
                raise GalleryError(f"{self.url}: damaged: files that state.json names are missing")
            self._view, self._stamp = View(self.folder, state, owner), stamp
        return self._view

    def _read(self, action: Callable[[View], Value]) -> Value:
        """Read from one state. If it was compacted between opening it and reading its files, from the next one."""
        for _ in range(RETRIES):
            with contextlib.suppress(FileNotFoundError):
                return action(self._open())
            self._view = None
        raise GalleryError(f"{self.url}: damaged: files that state.json names are missing")

    def _commit(self, state: State, view: View | None = None) -> None:
        write_text(self.folder / "state.json", state.model_dump_json(indent=1) + "\n")
        self._view = None
        if view is not None:
            found = (self.folder / "state.json").stat()
            view.state = state
            self._view, self._stamp = view, (found.st_ino, found.st_mtime_ns)

    def _write_segment(
        self, name: str, generation: int, numbers: NDArray[np.int64], vectors: Floats, index: Index = "flat"
    ) -> Segment:
        import pyarrow as pa  # noqa: PLC0415

        dim = vectors.shape[1]
        flat = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), dim)
        _write_table(self.folder / "segments" / f"{name}.parquet", {"number": numbers, "vector": flat})
        if index != "flat":
            _write_index(self.folder / "segments" / f"{name}.faiss", vectors, index)
        return Segment(name=name, generation=generation, dim=dim, rows=len(numbers), indexed=index != "flat")


def _ids(view: View, generation: int) -> list[str]:
    of_segment = np.array([segment.generation for segment in view.state.segments])
    if not len(of_segment):
        return []
    return [view.ids[number] for number in np.flatnonzero(of_segment[view.owner] == generation)]


def _fetched(view: View, ids: Sequence[str]) -> list[Items]:
    wanted = np.array([view.places[name] for name in ids if name in view.places], np.int64)
    found = []
    for position in np.unique(view.owner[wanted]).tolist():
        numbers, vectors = read_segment(
            view.folder, view.state.segments[position]
        )  # mapped: only what is chosen is read
        chosen = np.flatnonzero(np.isin(numbers, wanted[view.owner[wanted] == position]))
        found.append(items_of(view, position, numbers[chosen], vectors[chosen]))
    return found


def _write_table(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    with atomic_file(path) as temporary:
        # Vectors do not compress, and random ones read back fastest plain.
        pq.write_table(pa.table(columns), temporary, compression="none", use_dictionary=False)


def _write_index(path: Path, vectors: Floats, kind: Index) -> None:
    faiss = faiss_module()

    count, dim = vectors.shape
    index: Any
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 128
    else:
        lists = int(np.clip(4 * np.sqrt(count), 1, max(1, count // 39)))
        parts = max(part for part in range(1, min(max(1, dim // 4), 64) + 1) if dim % part == 0)  # of 4 values or more
        index = faiss.index_factory(dim, f"IVF{lists},PQ{parts}x8", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, lists // 8)
        index.train(vectors[np.random.default_rng(0).permutation(count)[: 256 * lists]])
    index.add(vectors)
    with atomic_file(path) as temporary:
        faiss.write_index(index, str(temporary))
