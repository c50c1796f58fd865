"""Embedded data sets as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nobackfill.data import Samples
from nobackfill.files import atomic_file
from nobackfill.models import EmbeddingSpec

Write = Callable[[BinaryIO, NDArray[np.float32], Samples, EmbeddingSpec], None]


def write_vectors(path: Path, vectors: NDArray[np.float32], images: Samples, spec: EmbeddingSpec) -> None:
    """Write vectors [n, dim] of these images to a .npy or .parquet file, whole or not at all."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        WRITERS[path.suffix](file, vectors, images, spec)


def _npy(file: BinaryIO, vectors: NDArray[np.float32], images: Samples, spec: EmbeddingSpec) -> None:  # noqa: ARG001
    np.save(file, vectors)


def _parquet(file: BinaryIO, vectors: NDArray[np.float32], images: Samples, spec: EmbeddingSpec) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "id": list(images.ids),
        "label": images.labels,
        "class": [images.class_names[label] for label in images.labels],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata({"nobackfill": spec.model_dump_json()})
    pq.write_table(table, file)


WRITERS: dict[str, Write] = {".npy": _npy, ".parquet": _parquet}
