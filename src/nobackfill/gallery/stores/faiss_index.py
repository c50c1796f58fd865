"""Approximate indexes of a folder gallery: FAISS files beside the database, which holds the vectors of record."""

from __future__ import annotations

import math
import re
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import GalleryError
from nobackfill.files import atomic_file, write_npy
from nobackfill.gallery.stores.base import Floats

if TYPE_CHECKING:
    import faiss as faiss_types

Kind = Literal["flat", "hnsw", "ivfpq"]
INDEX_FILE = re.compile(r"\.?(g\d+-[0-9a-f]{12})\.(?:\w+\.)?(?:faiss|npy)")  # or what `atomic_file` had of it
INDEXED = 1000  # items of a generation from which an approximate index is worth building
COMPARED = 20  # vectors that HNSW compares with a query for each candidate it looks at, roughly


@dataclass
class ApproximateIndex:
    """An index of a generation as it was when it was built.

    Attributes:
        index: of FAISS, mapped.
        numbers: of the item in each row, int64 [rows], ascending.
        live: which rows still count, bool [rows].
    """

    index: faiss_types.Index
    numbers: NDArray[np.int64]
    live: NDArray[np.bool_]

    def forget(self, number: int) -> None:
        """The row of this item counts no more."""
        row = int(np.searchsorted(self.numbers, number))
        if row < len(self.numbers) and self.numbers[row] == number:
            self.live[row] = False

    def search(self, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """Scores and item numbers [n, ≤ k]; −∞ and −1 where there are no more."""
        if not self.live.any():
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        faiss = faiss_module()
        selector = faiss.IDSelectorBitmap(np.packbits(self.live, bitorder="little"))
        index, share = self.index, self.live.mean()
        # Parameters replace the index's own settings; and of few live rows more of all has to be looked at.
        if hasattr(index, "hnsw"):
            candidates = math.ceil(max(index.hnsw.efSearch, k) / share)
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=candidates)
            if COMPARED * candidates >= self.live.sum():  # then it is quicker to compare all of them
                index, parameters = faiss.downcast_index(index.storage), faiss.SearchParameters(sel=selector)
        else:
            lists = min(index.nlist, math.ceil(index.nprobe / share))
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=lists)
        scores, rows = index.search(queries, min(k, len(self.numbers)), params=parameters)
        return np.where(rows < 0, -np.inf, scores), np.where(rows < 0, -1, self.numbers[rows])


def write_index(path: Path, vectors: Floats, numbers: NDArray[np.int64], kind: Kind) -> None:
    """Builds an index and writes it to `path`.faiss, the numbers to `path`.npy."""
    faiss = faiss_module()
    count, dim = vectors.shape
    index: faiss_types.Index
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 128
    else:
        lists = int(np.clip(4 * np.sqrt(count), 1, max(1, count // 39)))
        parts = max(part for part in range(1, min(max(1, dim // 4), 64) + 1) if dim % part == 0)  # of 4 values or more
        index = faiss.index_factory(dim, f"IVF{lists},PQ{parts}x8", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, lists // 8)
        index.do_polysemous_training = False  # minutes spent on an order of codes that no search here makes use of
        index.train(vectors[np.random.default_rng(0).permutation(count)[: 256 * lists]])
    index.add(vectors)
    write_npy(path.with_suffix(".npy"), numbers)
    with atomic_file(path.with_suffix(".faiss")) as temporary:
        faiss.write_index(index, str(temporary))


def build_indexes(connection: sqlite3.Connection, folder: Path, kind: Kind) -> dict[int, tuple[str, int]]:
    """An index of each generation that is large enough; returns the name of each and the last change it knows."""
    folder.mkdir(exist_ok=True)
    changed = int(connection.execute("SELECT changed FROM clock").fetchone()[0])
    names = {}
    counts = connection.execute("SELECT generation, items FROM tallies ORDER BY generation").fetchall()
    for number in [number for number, count in counts if count >= INDEXED]:
        rows = connection.execute("SELECT seq, vector FROM items WHERE generation = ? ORDER BY seq", (number,))
        numbers, blobs = zip(*rows, strict=True)
        name = f"g{number}-{uuid.uuid4().hex[:12]}"
        vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), -1)
        write_index(folder / name, vectors, np.array(numbers, np.int64), kind)
        names[number] = name, changed
    return names


def read_index(path: Path) -> ApproximateIndex:
    """What `write_index` wrote; raises `FileNotFoundError` if it is gone, `GalleryError` if it is damaged."""
    faiss = faiss_module()
    try:
        index = faiss.read_index(str(path.with_suffix(".faiss")), faiss.IO_FLAG_MMAP)
        numbers = np.load(path.with_suffix(".npy"), allow_pickle=False)
        if numbers.dtype != np.int64 or numbers.shape != (index.ntotal,):
            raise ValueError("numbers do not fit")
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        if not all(path.with_suffix(ending).exists() for ending in (".faiss", ".npy")):  # compacted away meanwhile
            raise FileNotFoundError(str(path)) from error
        raise GalleryError(f"{path.with_suffix('.faiss')}: damaged; `gallery compact` rebuilds it") from error
    return ApproximateIndex(index, numbers, np.ones(len(numbers), np.bool_))


def faiss_module() -> ModuleType:
    """FAISS, whose own annotations cover half of it."""
    import faiss

    module: ModuleType = faiss
    return module
