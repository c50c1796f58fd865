"""Files of a folder gallery: columns of parquet, and FAISS indexes beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import GalleryError
from nobackfill.files import atomic_file
from nobackfill.gallery.stores.base import Floats
from nobackfill.gallery.stores.faiss_state import Index, Segment

if TYPE_CHECKING:
    import faiss as faiss_types
    import pyarrow as pa


def column(path: Path, name: str) -> pa.ChunkedArray:
    """One column of a parquet file, mapped; raises `GalleryError` if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=[name], memory_map=True).column(name)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise GalleryError(f"{path}: damaged: {' '.join(str(error).split())[:160]}") from error


def write_table(path: Path, columns: Mapping[str, object]) -> None:
    """A parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        # Vectors do not compress, and random ones read back fastest plain.
        pq.write_table(pa.table(dict(columns)), temporary, compression="none", use_dictionary=False)


def segment_numbers(folder: Path, segment: Segment) -> NDArray[np.int64]:
    """Item numbers of a segment, int64 [rows]."""
    numbers: NDArray[np.int64] = column(folder / "segments" / f"{segment.name}.parquet", "number").to_numpy()
    return numbers


def read_segment(folder: Path, segment: Segment) -> tuple[NDArray[np.int64], Floats]:
    """Item numbers int64 [rows] and vectors float32 [rows, dim] of a segment, all of them."""
    path = folder / "segments" / f"{segment.name}.parquet"
    numbers = segment_numbers(folder, segment)
    vectors = column(path, "vector").combine_chunks().flatten().to_numpy().reshape(len(numbers), segment.dim)
    return numbers, vectors


def write_segment(
    folder: Path, segment: Segment, numbers: NDArray[np.int64], vectors: Floats, index: Index = "flat"
) -> Segment:
    """Write a segment's vectors, and an index unless it is `flat`; returns the segment as it is then."""
    import pyarrow as pa

    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), vectors.shape[1])
    write_table(folder / "segments" / f"{segment.name}.parquet", {"number": numbers, "vector": flat})
    if index != "flat":
        _write_index(folder / "segments" / f"{segment.name}.faiss", vectors, index)
    return segment.model_copy(update={"rows": len(numbers), "indexed": index != "flat"})


def _write_index(path: Path, vectors: Floats, kind: Index) -> None:
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
        index.train(vectors[np.random.default_rng(0).permutation(count)[: 256 * lists]])
    index.add(vectors)
    with atomic_file(path) as temporary:
        faiss.write_index(index, str(temporary))


def read_index(path: Path) -> faiss_types.Index:
    """A FAISS index, mapped; raises `FileNotFoundError` if it was compacted away, `GalleryError` if it is damaged."""
    faiss = faiss_module()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        if not path.exists():
            raise FileNotFoundError(str(path)) from error
        raise GalleryError(f"{path}: damaged; `gallery compact` rebuilds it") from error


def live_parameters(index: faiss_types.Index, live: NDArray[np.bool_], k: int) -> faiss_types.SearchParameters:
    """Search parameters that leave out the rows of an approximate index that do not count (bool [rows])."""
    faiss = faiss_module()
    selector = faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
    # Parameters replace the index's own settings; and of few live rows more lists have to be looked at.
    if hasattr(index, "hnsw"):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(index.hnsw.efSearch, k))
    lists = min(index.nlist, math.ceil(index.nprobe / live.mean()))
    return faiss.SearchParametersIVF(sel=selector, nprobe=lists)


def faiss_module() -> ModuleType:
    """FAISS, whose own annotations cover half of it."""
    import faiss

    module: ModuleType = faiss
    return module
