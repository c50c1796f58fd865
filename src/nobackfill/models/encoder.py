"""The encoder: preprocessing, backbone and head as one thing that turns images into vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from nobackfill.arrays import at_a_time
from nobackfill.data.loader import ImageLoader
from nobackfill.data.preprocessing import Preprocessing
from nobackfill.data.samples import Images, Inputs, Samples
from nobackfill.errors import DataError
from nobackfill.models.network import Network
from nobackfill.models.spec import EmbeddingSpec
from nobackfill.progress import track


class Encoder(nn.Module):
    """Images to embeddings, in evaluation mode; `TextEncoder` and `VectorEncoder` are its like for other samples.

    Attributes:
        network: backbone and head.
        spec: size, norm, lineage, preprocessing, fingerprint.
    """

    BATCH: ClassVar[int] = 256

    def __init__(self, network: Network, spec: EmbeddingSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images float32 [n, 3, s, s] (text: tokens int64 [n, t]) to embeddings float32 [n, dim]."""
        embedding: Tensor = self.network(images)["embedding"]
        return mirrored_sum(embedding, self.network(images.flip(-1))["embedding"]) if self.mirrored else embedding

    @property
    def mirrored(self) -> bool:
        """Whether a vector also looks at the mirror image."""
        return isinstance(self.spec.preprocessing, Preprocessing) and self.spec.preprocessing.mirror

    def encode(self, samples: Inputs, batch_size: int | None = None, workers: int = 0) -> NDArray[np.float32]:
        """Embed images of any size (or texts, with a text model), on the device the encoder is on.

        Args:
            samples: uint8 [n, height, width, 3] or grey [n, height, width]; or image files; or opened PIL images. Of a
                text model: strings.
            batch_size: samples at a time; None: `BATCH`.
            workers: processes that decode image files.

        Returns:
            float32 [n, dim], in the order given, scaled as the method defines (`spec.norm`).

        Raises:
            DataError: for arrays of another shape or type, and for files that do not decode (named).
        """
        return self._encoded(self._check(samples), batch_size, workers)

    @torch.inference_mode()
    def _encoded(self, samples: Inputs, batch_size: int | None, workers: int) -> NDArray[np.float32]:
        """`encode` of samples that are known to be of the right kind."""
        batch_size = at_a_time(batch_size, self.BATCH)
        embeddings = np.empty((len(samples), self.spec.dim), np.float32)
        if not len(samples):
            return embeddings
        self.eval()
        batches = self._batches(samples, batch_size, workers, next(self.parameters()).device)
        title = f"encoding {len(samples)} {self.spec.modality}s"
        for positions, inputs in track(batches, title, -(-len(samples) // batch_size)):
            embeddings[positions.numpy()] = self(inputs).cpu().numpy()
        return embeddings

    def encode_set(self, samples: Samples, workers: int = 0, batch_size: int | None = None) -> NDArray[np.float32]:
        """Embed a data set; of images, a text model the captions. Raises `DataError` if it has nothing of the kind."""
        return self.encode(samples.inputs(self.spec.modality), batch_size, workers)

    def _check(self, samples: object) -> Inputs:
        return check_images(samples)

    def _batches(
        self, samples: Any, batch_size: int, workers: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of positions int64 [b] on the CPU and the network's inputs on its device."""
        preprocessing = self.spec.preprocessing
        assert isinstance(preprocessing, Preprocessing)  # noqa: S101 (a text model is a TextEncoder)
        return ImageLoader(samples, preprocessing, device, workers).batches(np.arange(len(samples)), batch_size)


def mirrored_sum(embeddings: Tensor, of_mirror_images: Tensor) -> Tensor:
    """The sum of two vectors at the norm of the first; twice [n, dim] to [n, dim].

    Inner products with any old vector are the mean of the two, scaled: the prefixes keep their meaning.
    """
    norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    total: Tensor = norms * normalize(embeddings + of_mirror_images)
    return total


def check_images(images: object) -> Images:
    """The images as `encode` takes them, grey repeated to three channels; raises `DataError`."""
    if isinstance(images, np.ndarray):
        colour = images.ndim == 4 and images.shape[-1] == 3
        grey = images.ndim == 3 and images.shape[-1] != 3  # [h, w, 3] would be one colour image, not a stack
        if images.dtype != np.uint8 or not (colour or grey) or 0 in images.shape[1:]:
            raise DataError(
                f"images: expected uint8 [n, height, width, 3] or [n, height, width], "
                f"found {images.dtype} {list(images.shape)}"
            )
        return images if colour else np.repeat(images[..., None], 3, axis=-1)
    if isinstance(images, str | bytes) or not isinstance(images, Sequence):
        raise DataError(f"images: expected an array or a list of image files, found {type(images).__name__}")
    for position, item in enumerate(images):
        if not isinstance(item, str | Path | Image.Image):
            raise DataError(f"images: item {position} is {type(item).__name__}, expected an image file or PIL image")
    return images
