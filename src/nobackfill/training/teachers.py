"""What the teachers say of the training images: computed once, on the evaluation view, kept as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nobackfill.data.imageset import ImageSet
from nobackfill.methods.base import Batch
from nobackfill.models.encoder import Encoder


@dataclass(frozen=True)
class Teachers:
    """Arrays over the training images, by position; None for a teacher the method does not need.

    Attributes:
        labels: int64 [n], class among those trained on.
        old: float32 [n, d_o], unit vectors.
        independent: float32 [n, d], unit vectors.
        prototypes: float32 [classes, d_o].
    """

    labels: Tensor
    old: Tensor | None
    independent: Tensor | None
    prototypes: Tensor | None

    def batch(self, positions: Tensor, device: torch.device) -> Batch:
        """The rows of one batch, on the device of the loss."""

        def rows(array: Tensor | None) -> Tensor | None:
            return None if array is None else array[positions].to(device, non_blocking=True)

        labels = self.labels[positions].to(device, non_blocking=True)
        prototypes = None if self.prototypes is None else self.prototypes.to(device)
        return Batch(labels, rows(self.old), rows(self.independent), prototypes)


def teacher_vectors(encoder: Encoder, images: ImageSet, workers: int) -> Tensor:
    """Unit vectors float32 [n, dim] of a teacher, in the order of the images.

    A generation whose own vectors have another norm (BT²) is brought to unit norm too: both the cosine terms and the
    prototypes of the published losses assume it.
    """
    return normalize(torch.from_numpy(encoder.encode_set(images, workers)))


def class_means(vectors: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Prototypes Wᵒ: the mean vector of each class, not renormalised; [n, d] and int64 [n] to [classes, d].

    A class without an image would get the zero vector, which attracts nothing and repels nothing.
    """
    sums = torch.zeros(classes, vectors.shape[1], dtype=torch.float64).index_add_(0, labels, vectors.double())
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return (sums / counts[:, None]).float()
