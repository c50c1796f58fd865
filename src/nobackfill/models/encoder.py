"""The encoder: preprocessing, backbone and head as one thing that turns images into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from nobackfill.data.imageset import Images
from nobackfill.data.loader import Loader
from nobackfill.data.preprocessing import Preprocessing
from nobackfill.errors import DataError
from nobackfill.models.network import Network
from nobackfill.models.spec import EmbeddingSpec, Prefix, fingerprint
from nobackfill.progress import track


class Encoder(nn.Module):
    """Images to embeddings, in evaluation mode.

    Attributes:
        network: backbone and head.
        spec: size, norm, lineage, preprocessing, fingerprint.
    """

    def __init__(self, network: Network, spec: EmbeddingSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images float32 [n, 3, s, s] to embeddings float32 [n, dim], scaled as the method defines."""
        embedding: Tensor = self.network(images)["embedding"]
        return embedding

    @torch.inference_mode()
    def encode(self, images: Images, batch_size: int = 256, workers: int = 0) -> NDArray[np.float32]:
        """Embed images of any size, on the device the encoder is on.

        Args:
            images: uint8 [n, height, width, 3] or grey [n, height, width]; or image files; or opened PIL images.
            batch_size: images at a time.
            workers: processes that decode image files.

        Returns:
            float32 [n, dim], in the order given, scaled as the method defines (`spec.norm`).

        Raises:
            DataError: for arrays of another shape or type, and for files that do not decode (named).
        """
        images = _check(images)
        if batch_size < 1:
            raise DataError(f"batch_size: expected at least 1, found {batch_size}")
        embeddings = np.empty((len(images), self.spec.dim), np.float32)
        if not len(images):
            return embeddings
        self.eval()
        device = next(self.parameters()).device
        loader = Loader(images, self.spec.preprocessing, device, workers)
        batches = loader.batches(np.arange(len(images)), batch_size)
        for positions, views in track(batches, f"encoding {len(images)} images", -(-len(images) // batch_size)):
            embeddings[positions.numpy()] = self(views).cpu().numpy()
        return embeddings


def finished_encoder(
    network: Network, method: str, preprocessing: Preprocessing, prefixes: tuple[Prefix, ...] = ()
) -> Encoder:
    """Wrap a trained network: fold its head, fingerprint it, name the generation."""
    network.head.fold()
    mark = fingerprint(network.architecture, preprocessing, network.state_dict())
    spec = EmbeddingSpec(
        generation=f"{method}-{mark[:12]}",
        dim=network.head.dim,
        norm=network.head.norm,
        prefixes=prefixes,
        fingerprint=mark,
        architecture=network.architecture,
        preprocessing=preprocessing,
    )
    return Encoder(network, spec)


def _check(images: Any) -> Images:
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
