"""What a folder gallery's files hold at one moment, opened for searching (see `faiss_store`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.gallery.stores.base import Floats, ItemBatch, Nearest, Payload
from nobackfill.gallery.stores.faiss_files import (
    column,
    faiss_module,
    live_parameters,
    read_index,
    read_segment,
    segment_numbers,
)
from nobackfill.gallery.stores.faiss_state import Segment, State

if TYPE_CHECKING:
    import faiss
    import pyarrow as pa

Searched = tuple["faiss.Index", NDArray[np.int64], NDArray[np.bool_] | None]
"""A FAISS index, the item number of each of its rows, and which rows count (None: all)."""


@dataclass
class View:
    """One state of the store, opened: what is searched.

    Attributes:
        owner: by item, the position of the segment whose vector counts.
        indexes: by generation, as far as it was searched.
        columns: by file and column, as far as they were read; of Arrow, a fraction of what Python's strings take.
    """

    folder: Path
    state: State
    owner: NDArray[np.int32]
    indexes: dict[int, list[Searched]] = field(default_factory=dict)
    columns: dict[tuple[str, str], pa.Array] = field(default_factory=dict)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Item numbers by id."""
        ids = (name for part, _ in self.state.items for name in self._column(part, "id").to_pylist())
        return {name: number for number, name in enumerate(ids)}

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Number of the first item in each file of items."""
        return np.cumsum([0, *(rows for _, rows in self.state.items)])[:-1]

    @cached_property
    def counts(self) -> dict[int, int]:
        """Items by generation."""
        rows_of = np.bincount(self.owner, minlength=len(self.state.segments))
        counts: dict[int, int] = {}
        for segment, rows in zip(self.state.segments, rows_of.tolist(), strict=True):
            counts[segment.generation] = counts.get(segment.generation, 0) + rows
        return {number: rows for number, rows in sorted(counts.items()) if rows}

    def ids(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Ids of these items."""
        return self._texts("id", np.asarray(numbers, np.int64))

    def payloads(self, numbers: Sequence[int]) -> list[Payload]:
        """What else is known of these items."""
        return [json.loads(text) for text in self._texts("payload", np.asarray(numbers, np.int64))]

    def of_generation(self, number: int) -> NDArray[np.int64]:
        """Item numbers of a generation, ascending."""
        generations = np.array([segment.generation for segment in self.state.segments], np.int64)
        return np.flatnonzero(generations[self.owner] == number) if len(generations) else np.empty(0, np.int64)

    def rows(self, position: int) -> tuple[NDArray[np.int64], Floats]:
        """Numbers and vectors of a segment, those that count."""
        numbers, vectors = read_segment(self.folder, self.state.segments[position])
        live = self.owner[numbers] == position
        return (numbers, vectors) if live.all() else (numbers[live], vectors[live])

    def searched(self, number: int) -> list[Searched]:
        """What to search for a generation; segments without an index are searched exactly, all together."""
        if number not in self.indexes:
            self.indexes[number] = self._open(number)
        return self.indexes[number]

    def _texts(self, name: str, numbers: NDArray[np.int64]) -> list[str]:
        part_of = np.searchsorted(self.starts, numbers, side="right") - 1
        texts = [""] * len(numbers)
        for part in np.unique(part_of).tolist():
            rows = np.flatnonzero(part_of == part)
            some = self._column(self.state.items[part][0], name).take(numbers[rows] - self.starts[part]).to_pylist()
            for row, text in zip(rows.tolist(), some, strict=True):
                texts[row] = text
        return texts

    def _column(self, part: str, name: str) -> pa.Array:
        if (part, name) not in self.columns:
            self.columns[part, name] = column(self.folder / "items" / part, name).combine_chunks()
        return self.columns[part, name]

    def _open(self, number: int) -> list[Searched]:
        opened: list[Searched] = []
        exact = []
        for position, segment in enumerate(self.state.segments):
            if segment.generation != number:
                continue
            if not segment.indexed:
                exact.append(self.rows(position))
                continue
            numbers = segment_numbers(self.folder, segment)
            live = self.owner[numbers] == position
            if live.any():
                index = read_index(self.folder / "segments" / f"{segment.name}.faiss")
                opened.append((index, numbers, None if live.all() else live))
        if any(len(numbers) for numbers, _ in exact):
            flat = faiss_module().IndexFlatIP(self.state.dims[number])
            for _, vectors in exact:
                flat.add(vectors)
            opened.append((flat, np.concatenate([numbers for numbers, _ in exact]), None))
        return opened


def search_view(view: View, number: int, queries: Floats, k: int) -> Nearest:
    """The best k of one generation; see `Store.search`."""
    all_scores, all_numbers = [], []
    for index, numbers, live in view.searched(number):
        parameters = None if live is None else live_parameters(index, live, k)
        scores, rows = index.search(queries, min(k, len(numbers)), params=parameters)
        all_scores.append(np.where(rows < 0, -np.inf, scores))
        all_numbers.append(np.where(rows < 0, -1, numbers[rows]))
    if not all_scores:
        return Nearest([[] for _ in queries], [np.empty(0, np.float32) for _ in queries])
    every, items = np.concatenate(all_scores, axis=1), np.concatenate(all_numbers, axis=1)
    best = np.argsort(-every, axis=1, kind="stable")[:, :k]
    every, items = np.take_along_axis(every, best, 1).astype(np.float32), np.take_along_axis(items, best, 1)
    ids = iter(view.ids(items[items >= 0]))
    return Nearest(
        [[next(ids) for _ in range(count)] for count in (items >= 0).sum(axis=1).tolist()],
        [row[item >= 0] for row, item in zip(every, items, strict=True)],
    )


def fetched(view: View, ids: Sequence[str]) -> list[ItemBatch]:
    """See `Store.fetch`; files are mapped, so only what is chosen is read."""
    wanted = np.array([view.numbers[name] for name in ids if name in view.numbers], np.int64)
    batches = []
    for position in np.unique(view.owner[wanted]).tolist():
        segment = view.state.segments[position]
        numbers, vectors = read_segment(view.folder, segment)
        rows = np.flatnonzero(np.isin(numbers, wanted[view.owner[wanted] == position]))
        chosen = numbers[rows].tolist()
        batches.append(ItemBatch(view.ids(chosen), segment.generation, vectors[rows], view.payloads(chosen)))
    return batches


def scanned(view: View, size: int) -> Iterator[ItemBatch]:
    """See `Store.scan`."""
    for position, segment in enumerate(view.state.segments):
        numbers, vectors = view.rows(position)
        for start in range(0, len(numbers), size):
            some = slice(start, start + size)
            yield ItemBatch(view.ids(numbers[some]), segment.generation, vectors[some], [])


def owner_of(folder: Path, segments: Sequence[Segment], count: int) -> NDArray[np.int32]:
    """For each item the position of the last segment that has it, −1 if none has."""
    owner = np.full(count, -1, np.int32)
    for position, segment in enumerate(segments):
        owner[segment_numbers(folder, segment)] = position
    return owner


def with_inserted(view: View, ids: list[str], segment: int) -> View:
    """The view after an insertion, without reading anything again."""
    grown = View(view.folder, view.state, np.concatenate([view.owner, np.full(len(ids), segment, np.int32)]))
    grown.__dict__["numbers"], grown.columns = view.numbers, view.columns
    first = len(view.owner)
    view.numbers.update({name: first + offset for offset, name in enumerate(ids)})
    return grown


def with_replaced(view: View, owner: NDArray[np.int32]) -> View:
    """The view after a replacement, without reading anything again."""
    changed = View(view.folder, view.state, owner, columns=view.columns)
    if "numbers" in view.__dict__:
        changed.__dict__["numbers"] = view.numbers
    return changed
