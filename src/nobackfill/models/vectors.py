"""Encoders of vectors: what another model made of an item in, a vector of another space out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.errors import DataError
from nobackfill.models.encoder import Encoder

BATCH = 8192  # rows at a time


class VectorEncoder(Encoder):
    """Vectors of another model to embeddings, in evaluation mode."""

    @torch.inference_mode()
    def encode(self, samples: Any, batch_size: int = BATCH, workers: int = 0) -> NDArray[np.float32]:
        """Embed vectors, on the device the encoder is on.

        Args:
            samples: floats [n, input_dim] of any width and norm, also memory-mapped.
            batch_size: rows at a time.
            workers: not used.

        Returns:
            float32 [n, dim], in the order given.

        Raises:
            DataError: for arrays of another shape or type, and rows without a direction (named).
        """
        return super().encode(samples, batch_size, workers)

    def _check(self, samples: Any) -> NDArray[Any]:
        size = self.input_dim
        array = np.asarray(samples)
        if array.ndim != 2 or array.shape[1] != size or array.dtype.kind != "f":
            raise DataError(f"vectors: expected floats [n, {size}], found {array.dtype} {list(array.shape)}")
        return array

    @property
    def input_dim(self) -> int:
        """Size of the vectors it takes."""
        assert isinstance(self.spec.preprocessing, VectorPreprocessing)  # noqa: S101 (what makes it a VectorEncoder)
        return self.spec.preprocessing.input_dim

    def _batches(
        self,
        samples: NDArray[Any],
        batch_size: int,
        workers: int,  # noqa: ARG002 (rows need none)
        device: torch.device,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        preprocessing = VectorPreprocessing(input_dim=self.input_dim)
        for start in range(0, len(samples), batch_size):
            rows = np.ascontiguousarray(samples[start : start + batch_size], np.float32)
            lengths = np.einsum("ij,ij->i", rows, rows)
            bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
            if len(bad):
                raise DataError(f"vectors: row {start + bad[0]} is zero or not finite; it has no direction")
            yield torch.arange(start, start + len(rows)), preprocessing.normalize(torch.from_numpy(rows).to(device))
