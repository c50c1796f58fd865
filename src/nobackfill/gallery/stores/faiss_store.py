"""A gallery in a folder: vectors of record in parquet, searched by FAISS.

    items/000001.parquet     ids and payloads, in the order of insertion; an item's number is its place in all of them
    segments/000002.parquet  numbers and vectors of one generation; .faiss beside it where it is indexed
    state.json               which of these files count, in which order
    documents/…              manifest and journal
    hits.sqlite              how often searches returned an item, if they count

Files are never changed. A write adds new ones and then replaces `state.json` by one rename, so a reader that holds a
state sees exactly that state. Of two segments with the same item the later one counts; `compact` writes each generation
anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.files import atomic_file
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import Floats, ItemBatch, Nearest, Payload, Store
from nobackfill.gallery.stores.faiss_compaction import compacted
from nobackfill.gallery.stores.faiss_files import write_segment, write_table
from nobackfill.gallery.stores.faiss_state import (
    FOLDERS,
    Index,
    Segment,
    State,
    read_state,
    remove_files,
    write_state,
)
from nobackfill.gallery.stores.faiss_view import (
    View,
    fetched,
    owner_of,
    scanned,
    search_view,
    with_inserted,
    with_replaced,
)
from nobackfill.gallery.stores.folder_lock import folder_lock
from nobackfill.gallery.stores.hit_counts import HitCounts
from nobackfill.gallery.stores.sampling import sampled

Value = TypeVar("Value")
RETRIES = 20  # to open a state while others compact it away


class FaissStore(Store):
    """See the module; `index` decides what `compact` builds for a generation of 1,000 items or more."""

    def __init__(self, address: Address, index: Index = "flat") -> None:
        self.folder = Path(address.location)
        self.url = address.url
        self.index = index
        self._hits = HitCounts(self.folder / "hits.sqlite", self.url)
        self._view: View | None = None
        self._stamp: tuple[int, int] | None = None

    def read(self, name: str) -> bytes | None:
        path = self._document(name)
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, data: bytes | None) -> None:
        path = self._document(name)
        if data is None:
            path.unlink(missing_ok=True)
            return
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)

    def create(self) -> None:
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise GalleryError(f"{self.url}: exists and is not empty; choose another folder or remove it")
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            try:
                (self.folder / name).mkdir()
            except FileExistsError:
                raise GalleryError(f"{self.url}: another process is creating a gallery there") from None
        self._commit(State(index=self.index))

    def add_generation(self, number: int, dim: int) -> None:
        state = read_state(self.folder, self.url)
        if state.dims.get(number) != dim:
            self._commit(state.model_copy(update={"dims": {**state.dims, number: dim}}))

    def insert(self, items: ItemBatch) -> None:
        view = self._open()
        taken = [name for name in items.ids if name in view.numbers]
        if taken or len(set(items.ids)) < len(items.ids):
            name = taken[0] if taken else next(name for name in items.ids if items.ids.count(name) > 1)
            raise GalleryError(f"{self.url}: item {name!r} already exists; ids are unique in a gallery")
        state, first = view.state, len(view.owner)
        part = f"{state.last + 1:06d}.parquet"
        texts = [json.dumps(dict(payload)) for payload in items.payloads]
        write_table(self.folder / "items" / part, {"id": items.ids, "payload": texts})
        segment = _named(state.last + 2, items)
        write_segment(self.folder, segment, np.arange(first, first + len(items.ids)), items.vectors)
        update = {
            "items": (*state.items, (part, len(items.ids))),
            "segments": (*state.segments, segment),
            "last": state.last + 2,
        }
        self._commit(state.model_copy(update=update), with_inserted(view, items.ids, len(state.segments)))

    def replace(self, items: ItemBatch, *, keep_old: bool) -> None:
        """The vectors before stay in their files; `compact` writes those anew that are to be kept."""
        view = self._open()
        missing = [name for name in items.ids if name not in view.numbers]
        if missing:
            raise GalleryError(f"{self.url}: no item {missing[0]!r} to replace")
        state = view.state
        numbers = np.fromiter((view.numbers[name] for name in items.ids), np.int64, len(items.ids))
        segment = _named(state.last + 1, items, keeps=keep_old)
        write_segment(self.folder, segment, numbers, items.vectors)
        update = {"segments": (*state.segments, segment), "last": state.last + 1}
        owner = view.owner.copy()
        owner[numbers] = len(state.segments)
        self._commit(state.model_copy(update=update), with_replaced(view, owner))

    def search(self, queries: Mapping[int, Floats], k: int) -> dict[int, Nearest]:
        return self._read(lambda view: {number: search_view(view, number, rows, k) for number, rows in queries.items()})

    def counts(self) -> dict[int, int]:
        return dict(self._open().counts)

    def ids(self, generation: int, size: int = 8192) -> Iterator[list[str]]:
        view = self._open()
        numbers = view.of_generation(generation)
        for start in range(0, len(numbers), size):
            yield view.ids(numbers[start : start + size])

    def sample(self, count: int, seed: int) -> list[str]:
        view = self._open()
        if not len(view.owner):
            return []
        return view.ids(
            sampled(0, len(view.owner) - 1, count, seed, lambda numbers: {number: number for number in numbers})
        )

    def fetch(self, ids: Sequence[str]) -> list[ItemBatch]:
        return self._read(lambda view: fetched(view, ids))

    def payloads(self, ids: Sequence[str]) -> dict[str, Payload]:
        def look(view: View) -> dict[str, Payload]:
            known = [name for name in ids if name in view.numbers]
            return dict(zip(known, view.payloads([view.numbers[name] for name in known]), strict=True))

        return self._read(look)

    def scan(self, size: int) -> Iterator[ItemBatch]:
        try:
            yield from scanned(self._open(), size)
        except FileNotFoundError:
            raise GalleryError(f"{self.url}: was compacted during the read; try again") from None

    def count_hits(self, hits: Mapping[str, int]) -> None:
        self._open()  # says so if there is no gallery
        self._hits.add(hits)

    def hits(self) -> Iterator[tuple[str, int]]:
        return self._hits.most_first()

    def restore(self, generation: int) -> int:
        view = self._open()
        segments = tuple(segment for segment in view.state.segments if segment.generation <= generation)
        old = owner_of(self.folder, segments, len(view.owner))
        if (old < 0).any():
            return int((old < 0).sum())
        self._commit(view.state.model_copy(update={"segments": segments}))
        return 0

    def compact(self, *, forget_kept: bool) -> None:
        view = self._open()
        state = compacted(self.folder, view.state, len(view.owner), forget_kept=forget_kept)
        self._commit(state)
        remove_files(self.folder, state, self.url)

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """A lock on a file: the system lets go of it when its owner is gone."""
        return folder_lock(self.folder / "lock", self.url)

    def close(self) -> None:
        self._view = None

    def _document(self, name: str) -> Path:
        return self.folder / "documents" / quote(name, safe="")

    def _open(self) -> View:
        """The present state; opened anew when another process has changed it."""
        stamp = self._written()
        if self._view is None or self._stamp != stamp:
            for _ in range(RETRIES):
                state = read_state(self.folder, self.url)
                try:
                    owner = owner_of(self.folder, state.segments, sum(rows for _, rows in state.items))
                    break
                except FileNotFoundError:  # compacted meanwhile: there is a newer state
                    continue
            else:
                raise GalleryError(f"{self.url}: damaged: files that state.json names are missing")
            self._view, self._stamp = View(self.folder, state, owner), stamp
        return self._view

    def _written(self) -> tuple[int, int]:
        """Tells one state.json from the next."""
        try:
            status = (self.folder / "state.json").stat()
        except FileNotFoundError:
            raise GalleryError(f"{self.url}: no gallery there; create one with `gallery create`") from None
        return status.st_ino, status.st_mtime_ns

    def _read(self, action: Callable[[View], Value]) -> Value:
        """Read from one state. If it was compacted between opening it and reading its files, from the next one."""
        for _ in range(RETRIES):
            with contextlib.suppress(FileNotFoundError):
                return action(self._open())
            self._view = None
        raise GalleryError(f"{self.url}: damaged: files that state.json names are missing")

    def _commit(self, state: State, view: View | None = None) -> None:
        write_state(self.folder, state)
        self._view = None
        if view is not None:
            view.state = state
            self._view, self._stamp = view, self._written()


def _named(number: int, items: ItemBatch, *, keeps: bool = False) -> Segment:
    dim = items.vectors.shape[1]
    return Segment(name=f"{number:06d}", generation=items.generation, dim=dim, rows=len(items.ids), keeps=keeps)
