"""The vectors of a folder gallery in memory, brought up to date by what changed since (see `faiss_store`)."""

from __future__ import annotations

import itertools
import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter, matches
from nobackfill.gallery.formats import parse_payload
from nobackfill.gallery.stores.base import Floats
from nobackfill.gallery.stores.faiss_index import ApproximateIndex, faiss_module, read_index

PAGE = 16_384  # rows read at a time
SPARE = 1.125  # room for items to come, so that not each new one copies all that is known of the others
CACHED = 16  # filters whose items are remembered
CHUNK = 65_536  # filtered vectors compared at a time
Found = tuple[Floats, NDArray[np.int64]]
"""Scores and item numbers [n, ≤ k]; −∞ and −1 where there are no more."""


@dataclass
class Block:
    """Vectors of one generation; the first `count` rows count, in no order.

    Attributes:
        vectors: float32 [≥ count, dim]; `numbers` int64 alike.
        index: of the items it holds; these have no row.
    """

    vectors: Floats
    numbers: NDArray[np.int64]
    count: int = 0
    index: ApproximateIndex | None = None

    def append(self, numbers: NDArray[np.int64], vectors: Floats) -> NDArray[np.int64]:
        """Adds rows; returns where they are."""
        rows = np.arange(self.count, self.count + len(numbers))
        if rows.size and rows[-1] >= len(self.numbers):
            self._grow(max(2 * len(self.numbers), int(rows[-1]) + 1), vectors.shape[1])
        self.vectors[rows], self.numbers[rows] = vectors, numbers
        self.count += len(numbers)
        return rows

    def _grow(self, size: int, dim: int) -> None:
        """Room for so many rows; what is not written yet takes no memory."""
        vectors, numbers = np.empty((size, dim), "f4"), np.empty(size, np.int64)
        vectors[: self.count], numbers[: self.count] = self.vectors[: self.count], self.numbers[: self.count]
        self.vectors, self.numbers = vectors, numbers

    def remove(self, row: int) -> int:
        """The last row takes the place of this one; returns the item that moved."""
        self.count -= 1
        self.vectors[row], self.numbers[row] = self.vectors[self.count], self.numbers[self.count]
        return int(self.numbers[row])


@dataclass
class View:
    """What is searched. Used by one thread at a time, inside a reading transaction.

    Attributes:
        folder: of the gallery.
        changed: number of the last change it knows.
        blocks: by generation.
        rows: by item number its row, −1: it has none; `generations` alike, 0: none.
        cached: by filter, which items fulfil it, bool by item number.
    """

    folder: Path
    changed: int = -1
    blocks: dict[int, Block] = field(default_factory=dict)
    rows: NDArray[np.int64] = field(default_factory=lambda: np.full(1, -1))
    generations: NDArray[np.int32] = field(default_factory=lambda: np.zeros(1, np.int32))
    cached: dict[str, tuple[Filter, NDArray[np.bool_]]] = field(default_factory=dict)

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Takes in what was changed; raises `GalleryError` for damaged vectors."""
        now = int(connection.execute("SELECT changed FROM clock").fetchone()[0])
        if now == self.changed:
            return
        self._grow(int(connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()[0]))
        indexed = self._open_indexes(connection) if self.changed < 0 else {}
        dims = dict(connection.execute("SELECT number, dim FROM generations"))
        if self.changed < 0:  # the size is known: nothing is copied while it is read, nor for a while after
            for number, count in connection.execute("SELECT generation, items FROM tallies").fetchall():
                if number in dims and number not in self.blocks:
                    size = int(SPARE * count) + PAGE
                    self.blocks[number] = Block(np.empty((size, dims[number]), "f4"), np.empty(size, np.int64))
        removed = (
            "SELECT DISTINCT seq FROM changes WHERE changed > ? "
            "AND NOT EXISTS (SELECT 1 FROM items WHERE items.seq = changes.seq)"
        )
        for (seq,) in connection.execute(removed, (self.changed,)):
            self._remove(seq)
            for _, mask in self.cached.values():
                mask[seq] = False
        later = "WHERE seq IN (SELECT seq FROM changes WHERE changed > ?)" if self.changed >= 0 else ""
        rows = connection.execute(
            f"SELECT generation, seq, changed, payload, vector FROM items {later}",
            (self.changed,) if later else (),
        )
        while page := sorted(rows.fetchmany(PAGE), key=lambda row: int(row[0])):
            for generation, group in itertools.groupby(page, key=lambda row: int(row[0])):
                if generation not in dims:
                    raise GalleryError(f"{self.folder}: damaged: items of generation {generation}, which has no size")
                self._take(generation, list(group), dims[generation], indexed.get(generation, -1))
        self.changed = now

    def search(
        self, connection: sqlite3.Connection, generation: int, queries: Floats, k: int, where: Filter | None
    ) -> Found:
        """The best k of one generation."""
        block = self.blocks.get(generation)
        parts: list[Found] = []
        if block is not None and where is None:
            parts.append(_exact(queries, block.vectors[: block.count], block.numbers[: block.count], k))
            if block.index is not None:
                parts.append(block.index.search(queries, k))
        elif block is not None:
            allowed = self._matching(connection, where or ())
            rows = np.flatnonzero(allowed[block.numbers[: block.count]])
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                parts.append(_exact(queries, block.vectors[some], block.numbers[some], k))
            if block.index is not None:
                numbers = block.index.numbers[block.index.live]
                parts += _stored(connection, queries, numbers[allowed[numbers]], k)
        if not parts:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        scores, numbers = (np.concatenate([part[side] for part in parts], axis=1) for side in (0, 1))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)

    def _matching(self, connection: sqlite3.Connection, where: Filter) -> NDArray[np.bool_]:
        key = repr(where)  # not the filter: True and 1 are one key of a dictionary
        if key not in self.cached:
            mask = np.zeros(len(self.rows), np.bool_)
            for seq, payload in connection.execute("SELECT seq, payload FROM items"):
                mask[seq] = matches(where, parse_payload(payload))
            if len(self.cached) >= CACHED:
                self.cached.pop(next(iter(self.cached)))
            self.cached[key] = where, mask
        return self.cached[key][1]

    def _take(self, generation: int, page: list[tuple[int, int, int, str, bytes]], dim: int, indexed: int) -> None:
        for _, seq, _, payload, _ in page:
            self._remove(seq)
            for where, mask in self.cached.values():
                mask[seq] = matches(where, parse_payload(payload))
        numbers = np.array([row[1] for row in page], np.int64)
        self.generations[numbers] = generation
        page = [row for row in page if row[2] > indexed]  # the others are in the index
        if not page:
            return
        wrong = next((row for row in page if len(row[4]) != 4 * dim), None)
        if wrong is not None:
            raise GalleryError(f"{self.folder}: damaged: item number {wrong[1]} has no vector of {dim} values")
        numbers = np.array([row[1] for row in page], np.int64)
        vectors = np.frombuffer(b"".join(row[4] for row in page), "<f4").reshape(len(page), dim)
        block = self.blocks.get(generation)
        if block is None or block.vectors.shape[1] != dim:  # of a model that was forgotten: it holds nothing any more
            block = self.blocks[generation] = Block(np.empty((0, dim), "f4"), np.empty(0, np.int64))
        self.rows[numbers] = block.append(numbers, vectors)

    def _remove(self, seq: int) -> None:
        generation = int(self.generations[seq])
        if not generation:
            return
        block, row = self.blocks[generation], int(self.rows[seq])
        self.generations[seq], self.rows[seq] = 0, -1
        if row >= 0:
            moved = block.remove(row)
            if moved != seq:
                self.rows[moved] = row
        elif block.index is not None:
            block.index.forget(seq)

    def _open_indexes(self, connection: sqlite3.Connection) -> dict[int, int]:
        """Opens the indexes of a view that is empty; returns for each generation up to which change one knows it."""
        dims = dict(connection.execute("SELECT number, dim FROM generations"))
        known = {}
        for generation, name, changed in connection.execute("SELECT generation, name, changed FROM indexes").fetchall():
            index = read_index(self.folder / "indexes" / name)
            held = {
                seq
                for (seq,) in connection.execute(
                    "SELECT seq FROM items WHERE generation = ? AND changed <= ?", (generation, changed)
                )
            }
            index.live = np.fromiter(
                (number in held for number in index.numbers.tolist()), np.bool_, len(index.numbers)
            )
            self.blocks[generation] = Block(np.empty((0, dims[generation]), "f4"), np.empty(0, np.int64), index=index)
            known[generation] = changed
        return known

    def _grow(self, last: int) -> None:
        if last + 1 > len(self.rows):
            more = int(SPARE * (last + 1)) + PAGE - len(self.rows)
            self.rows = np.concatenate([self.rows, np.full(more, -1)])
            self.generations = np.concatenate([self.generations, np.zeros(more, np.int32)])
            self.cached = {
                key: (where, np.concatenate([mask, np.zeros(more, np.bool_)]))
                for key, (where, mask) in self.cached.items()
            }


def _exact(queries: Floats, vectors: Floats, numbers: NDArray[np.int64], k: int) -> Found:
    if not len(numbers):
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    faiss = faiss_module()
    scores, rows = faiss.knn(queries, vectors, min(k, len(numbers)), metric=faiss.METRIC_INNER_PRODUCT)
    return np.where(rows < 0, -np.inf, scores).astype(np.float32), np.where(rows < 0, -1, numbers[rows])


def _stored(connection: sqlite3.Connection, queries: Floats, numbers: NDArray[np.int64], k: int) -> list[Found]:
    """Exact search of items whose vectors are not in memory."""
    parts = []
    for start in range(0, len(numbers), PAGE):
        some = numbers[start : start + PAGE]
        rows = connection.execute(
            "SELECT seq, vector FROM items WHERE seq IN (SELECT value FROM json_each(?))", (json.dumps(some.tolist()),)
        ).fetchall()
        vectors = np.frombuffer(b"".join(row[1] for row in rows), "<f4").reshape(len(rows), -1)
        parts.append(_exact(queries, vectors, np.array([row[0] for row in rows], np.int64), k))
    return parts
