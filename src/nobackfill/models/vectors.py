"""Encoders of vectors: what another model made of an item in, a vector of another space out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nobackfill.arrays import Array, unit
from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.data.samples import Inputs
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
            some = samples[start : start + batch_size]
            numbers = np.arange(start, start + len(some))
            yield torch.from_numpy(numbers), torch.from_numpy(unit(some, "vectors", numbers=numbers)).to(device)
