"""What a folder gallery's files hold at one moment, opened for searching (see `faiss_store`)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import Floats
from nobackfill.gallery.store import Found, Items, Payload

Index = Literal["flat", "hnsw", "ivfpq"]


class Segment(BaseModel):
    """Vectors of one generation in one file; `indexed` if a FAISS index lies beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    generation: int
    dim: int
    rows: int
    indexed: bool = False


class State(BaseModel):
    """Which files count. `ceiling`: vectors of newer generations are ignored (after a rollback)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    index: Index = "flat"
    items: tuple[tuple[str, int], ...] = ()
    segments: tuple[Segment, ...] = ()
    dims: dict[int, int] = {}
    last: int = 0


@dataclass
class View:
    """One state of the store, opened: what is searched.

    Attributes:
        owner: by item, the position of the segment whose vector counts.
        columns: payloads by part, as far as they were read.
    """

    folder: Path
    state: State
    owner: NDArray[np.int32]
    indexes: dict[int, tuple[Any, NDArray[np.int64]]] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def ids(self) -> list[str]:
        """By item number."""
        return [name for part, _ in self.state.items for name in column(self.folder / "items" / part, "id").to_pylist()]

    @cached_property
    def places(self) -> dict[str, int]:
        """Item numbers by id."""
        return {name: number for number, name in enumerate(self.ids)}

    @cached_property
    def counts(self) -> dict[int, int]:
        """Items by generation."""
        held = np.bincount(self.owner, minlength=len(self.state.segments))
        counts: dict[int, int] = {}
        for segment, rows in zip(self.state.segments, held.tolist(), strict=True):
            counts[segment.generation] = counts.get(segment.generation, 0) + rows
        return {number: rows for number, rows in sorted(counts.items()) if rows}

    def payloads(self, numbers: Sequence[int]) -> list[Payload]:
        """Read from the parts that hold these items."""
        found: dict[int, Payload] = {}
        start, wanted = 0, np.asarray(numbers, np.int64)
        for part, rows in self.state.items:
            inside = wanted[(wanted >= start) & (wanted < start + rows)]
            if len(inside):
                if part not in self.columns:
                    self.columns[part] = column(self.folder / "items" / part, "payload").combine_chunks()
                texts = self.columns[part].take(inside - start).to_pylist()
                found.update(zip(inside.tolist(), map(json.loads, texts), strict=True))
            start += rows
        return [found[number] for number in numbers]

    def rows(self, position: int) -> tuple[NDArray[np.int64], Floats]:
        """Numbers and vectors of a segment, those that count."""
        segment = self.state.segments[position]
        numbers, vectors = read_segment(self.folder, segment)
        live = self.owner[numbers] == position
        return (numbers, vectors) if live.all() else (numbers[live], vectors[live])

    def generation(self, number: int) -> list[tuple[Any, NDArray[np.int64], Any]]:
        """What to search for a generation: FAISS index, item by row, search parameters that leave out what is not live.

        Segments without an index of their own are searched exactly, all together.
        """
        if number not in self.indexes:
            self.indexes[number] = self._open(number)
        return self.indexes[number]  # type: ignore[return-value]

    def _open(self, number: int) -> Any:
        faiss = faiss_module()

        parts, exact = [], []
        for position, segment in enumerate(self.state.segments):
            if segment.generation != number:
                continue
            if not segment.indexed:
                exact.append(self.rows(position))
                continue
            numbers = column(self.folder / "segments" / f"{segment.name}.parquet", "number").to_numpy()
            live = self.owner[numbers] == position
            if live.any():
                index = _read_index(self.folder / "segments" / f"{segment.name}.faiss")
                parts.append((index, numbers, None if live.all() else live))
        if any(len(numbers) for numbers, _ in exact):
            flat = faiss.IndexFlatIP(self.state.dims[number])
            for _, vectors in exact:
                flat.add(vectors)
            parts.append((flat, np.concatenate([numbers for numbers, _ in exact]), None))
        return parts


def _read_index(path: Path) -> Any:
    """A FAISS index, mapped; raises `FileNotFoundError` if it was compacted away, `GalleryError` if it is damaged."""
    faiss = faiss_module()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        if not path.exists():
            raise FileNotFoundError(str(path)) from error
        raise GalleryError(f"{path}: damaged; `gallery compact` builds it again") from error


def search_view(view: View, number: int, queries: Floats, k: int) -> Found:
    """The best k of one generation; see `Store.search`."""
    faiss = faiss_module()

    scores, numbers = [], []
    for index, of_row, live in view.generation(number):
        parameters = None
        if live is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
            # Parameters replace the index's own settings; and of few live rows more lists have to be looked at.
            if hasattr(index, "hnsw"):
                parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=max(index.hnsw.efSearch, k))
            else:
                lists = min(index.nlist, math.ceil(index.nprobe / live.mean()))
                parameters = faiss.SearchParametersIVF(sel=selector, nprobe=lists)
        top, rows = index.search(queries, min(k, len(of_row)), params=parameters)
        scores.append(np.where(rows < 0, -np.inf, top))
        numbers.append(np.where(rows < 0, -1, of_row[rows]))
    if not scores:
        return Found([[] for _ in queries], [np.empty(0, np.float32) for _ in queries])
    every, items = np.concatenate(scores, axis=1), np.concatenate(numbers, axis=1)
    best = np.argsort(-every, axis=1, kind="stable")[:, :k]
    every, items = np.take_along_axis(every, best, 1), np.take_along_axis(items, best, 1)
    return Found(
        [[view.ids[item] for item in line if item >= 0] for line in items.tolist()],
        [line[item >= 0] for line, item in zip(every.astype(np.float32), items, strict=True)],
    )


def items_of(view: View, position: int, numbers: NDArray[np.int64], vectors: Floats) -> Items:
    """Some rows of a segment, with ids and payloads."""
    chosen = numbers.tolist()
    generation = view.state.segments[position].generation
    return Items([view.ids[number] for number in chosen], generation, vectors, view.payloads(chosen))


def owner_of(folder: Path, segments: Sequence[Segment], count: int) -> NDArray[np.int32]:
    """For each item the position of the last segment that has it, −1 if none has."""
    owner = np.full(count, -1, np.int32)
    for position, segment in enumerate(segments):
        owner[column(folder / "segments" / f"{segment.name}.parquet", "number").to_numpy()] = position
    return owner


def extended(view: View, ids: list[str], segment: int) -> View:
    """The view after an insertion, without reading anything again."""
    new = View(view.folder, view.state, np.concatenate([view.owner, np.full(len(ids), segment, np.int32)]))
    new.__dict__["places"], new.columns = view.places, view.columns
    first = len(view.owner)
    view.places.update({name: first + offset for offset, name in enumerate(ids)})
    if "ids" in view.__dict__:
        view.ids.extend(ids)
        new.__dict__["ids"] = view.ids
    return new


def moved(view: View, owner: NDArray[np.int32]) -> View:
    """The view after an exchange, without reading anything again."""
    new = View(view.folder, view.state, owner, columns=view.columns)
    for name in ("ids", "places"):
        if name in view.__dict__:
            new.__dict__[name] = view.__dict__[name]
    return new


def read_segment(folder: Path, segment: Segment) -> tuple[NDArray[np.int64], Floats]:
    """Numbers and vectors of a segment, all of them."""
    path = folder / "segments" / f"{segment.name}.parquet"
    numbers = column(path, "number").to_numpy()
    vectors = column(path, "vector").combine_chunks().flatten().to_numpy().reshape(len(numbers), segment.dim)
    return numbers, vectors


def column(path: Path, name: str) -> Any:
    """One column of a parquet file, mapped; raises `GalleryError` if it is damaged."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.read_table(path, columns=[name], memory_map=True).column(name)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise GalleryError(f"{path}: damaged: {' '.join(str(error).split())[:160]}") from error


def faiss_module() -> Any:
    """FAISS, whose own annotations cover half of it."""
    import faiss  # noqa: PLC0415

    return faiss
