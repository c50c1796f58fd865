"""Encoders of vectors: what another model made of an item in, a vector of another space out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nobackfill.arrays import Array
from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.data.samples import Inputs
from nobackfill.errors import DataError
from nobackfill.models.array_encoder import check_vectors
from nobackfill.models.encoder import Encoder


class VectorEncoder(Encoder):
    """Vectors of another model to embeddings, in evaluation mode."""

    BATCH: ClassVar[int] = 4096  # few enough for the caches, enough for the matrix product

    def encode(self, samples: Inputs, batch_size: int | None = None, workers: int = 0) -> NDArray[np.float32]:
        """Embed vectors, on the device the encoder is on.

        Args:
            samples: floats [n, input_dim] of any width and norm, also memory-mapped.
            batch_size: rows at a time; None: `BATCH`.
            workers: not used.

        Returns:
            float32 [n, dim], in the order given.

        Raises:
            DataError: for arrays of another shape or type, and rows without a direction (named).
        """
        return super().encode(samples, batch_size, workers)

    def _check(self, samples: object) -> Array:
        return check_vectors(samples, self.spec, self.input_dim)

    @property
    def input_dim(self) -> int:
        """Size of the vectors it takes."""
        assert isinstance(self.spec.preprocessing, VectorPreprocessing)  # noqa: S101 (what makes it a VectorEncoder)
        return self.spec.preprocessing.input_dim

    def _batches(
        self,
        samples: Array,
        batch_size: int,
        workers: int,  # noqa: ARG002 (rows need none)
        device: torch.device,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(samples), batch_size):
            block = samples[start : start + batch_size]
            if block.dtype != np.float32 or not (block.flags.writeable and block.flags.c_contiguous):
                block = np.array(block, np.float32)  # torch wants what it could write to
            rows = torch.from_numpy(block).to(device)
            lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            sound = lengths.isfinite() & (lengths > 0)
            if not sound.all():
                bad = start + int((~sound).nonzero()[0, 0])
                raise DataError(f"vectors: row {bad} is zero or not finite, so it cannot be normalised")
            yield torch.arange(start, start + len(rows)), rows / lengths
