"""Batches of views: arrays stay on the device, image files are decoded by worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nobackfill.arrays import Array
from nobackfill.config import AugmentConfig
from nobackfill.data.augment import draws, random_view
from nobackfill.data.preprocessing import Preprocessing, VectorPreprocessing, read_image
from nobackfill.data.samples import Images
from nobackfill.data.tokens import Tokens
from nobackfill.errors import DataError
from nobackfill.machine import cores

Views = Iterator[tuple[Tensor, Tensor]]
"""Pairs of positions int64 [b] and what the preprocessing normalises, [b, …], on the device."""


class Loader(Protocol):
    """Serves samples in batches.

    Attributes:
        resident: whether all samples are on the device, and the positions of each batch too; else these are on the CPU.
    """

    @property
    def resident(self) -> bool: ...  # noqa: D102

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Views:
        """Evaluation views in `order`, normalised: what the network takes, float32."""

    def training_views(self, order: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> Views:
        """Views for training in `order`, not yet normalised; what is random in them depends on (seed, epoch) alone."""


class VectorLoader:
    """Serves vectors, which have one view only.

    Args:
        vectors: floats [n, dim], possibly memory-mapped.
        preprocessing: the encoder's view.
        device: where batches are wanted.
        resident: copy all to the device once.
    """

    def __init__(
        self, vectors: Array, preprocessing: VectorPreprocessing, device: torch.device, *, resident: bool = False
    ) -> None:
        self.rows: Tensor = torch.from_numpy(vectors)
        self.preprocessing: VectorPreprocessing = preprocessing
        self.device: torch.device = device
        self.resident = resident
        if resident:
            self.rows = self.rows.to(device)

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Views:
        """Unit vectors float32 [b, dim]."""
        for positions, rows in self.training_views(order, batch_size):
            yield positions, self.preprocessing.normalize(rows)

    def training_views(
        self,
        order: NDArray[np.int64],
        batch_size: int,
        seed: int = 0,  # noqa: ARG002 (nothing is random)
        epoch: int = 0,  # noqa: ARG002
    ) -> Views:
        """Rows as they are, [b, dim]."""
        whole = torch.from_numpy(order).to(self.rows.device)
        for start in range(0, len(order), batch_size):
            positions = whole[start : start + batch_size]
            yield positions, self.rows[positions].to(self.device)


class _OneView(Loader):
    """Of samples that have one view only, in training too; none is on the device before its batch."""

    resident = False

    def training_views(self, order: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> Views:  # noqa: ARG002
        return self.batches(order, batch_size)


class TextLoader(_OneView):
    """Serves the tokens of texts, which have one view only.

    Args:
        tokens: of all texts.
        device: where batches are wanted.
    """

    def __init__(self, tokens: Tokens, device: torch.device) -> None:
        self.tokens: Tokens = tokens
        self.device: torch.device = device

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Views:
        """int64 [b, t], t that of the longest text of the batch."""
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            yield torch.from_numpy(positions), torch.from_numpy(self.tokens.batch(positions)).to(self.device)


class PairLoader(_OneView):
    """Serves the positions of pairs: which texts they need follows from all pairs of a batch together."""

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Views:
        """Positions int64 [b], twice."""
        for start in range(0, len(order), batch_size):
            positions = torch.from_numpy(order[start : start + batch_size])
            yield positions, positions


class ImageLoader:
    """Serves views of images.

    Args:
        images: uint8 [n, h, w, 3], possibly memory-mapped, or image files.
        preprocessing: the encoder's view.
        device: where batches are wanted.
        workers: processes that decode files; 0 decodes in this one.
        resident: copy an array to the device once, for many passes; else it goes there batch by batch.
        augment: the random views of training.
    """

    def __init__(
        self,
        images: Images,
        preprocessing: Preprocessing,
        device: torch.device,
        workers: int = 0,
        *,
        resident: bool = False,
        augment: AugmentConfig | None = None,
    ) -> None:
        self.images = images
        self.preprocessing = preprocessing
        self.device = device
        self.workers = workers
        self.augment = augment
        self._pixels = torch.from_numpy(images).to(device) if resident and isinstance(images, np.ndarray) else None

    @property
    def resident(self) -> bool:
        """Whether the whole array is on the device."""
        return self._pixels is not None

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Views:
        """Evaluation views: what the network sees, float32 [b, 3, s, s]."""
        for positions, views in self.views(order, batch_size):
            yield positions, self.preprocessing.normalize(views)

    def training_views(self, order: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> Views:
        """Random views uint8 [b, 3, s, s]."""
        return self.views(order, batch_size, self.augment, draws(seed, epoch, len(self.images), self.augment))

    def views(
        self,
        order: NDArray[np.int64],
        batch_size: int,
        augment: AugmentConfig | None = None,
        numbers: Tensor | None = None,
    ) -> Views:
        """Yields (positions int64 [b], views uint8 [b, 3, s, s] on the device), in `order`.

        The positions are on the device where the array is resident, else on the CPU. With `augment` the views are
        random, as `numbers` [n, 7] (`augment.draws`) has them for each position.
        """
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        if not isinstance(self.images, np.ndarray):
            for positions, views in self._decoded(chunks, augment, numbers):
                yield positions, views.to(self.device, non_blocking=True)
            return
        location = torch.device("cpu") if self._pixels is None else self.device
        whole = torch.from_numpy(order).to(location)  # once: a copy at every step would hold the device up
        numbers = None if numbers is None else numbers.to(location)
        for start, chunk in zip(range(0, len(order), batch_size), chunks, strict=True):
            positions = whole[start : start + batch_size]
            raw = (
                torch.from_numpy(self.images[chunk]).to(self.device)
                if self._pixels is None
                else self._pixels[positions]
            ).permute(0, 3, 1, 2)
            if augment is None or numbers is None:
                yield positions, self.preprocessing.resized(raw)
            else:
                yield positions, random_view(raw, numbers[positions].to(self.device), augment, self.preprocessing)

    def _decoded(self, chunks: list[NDArray[np.int64]], augment: AugmentConfig | None, numbers: Tensor | None) -> Views:
        dataset = _Files(self.images, self.preprocessing, augment, numbers)
        workers = min(self.workers, len(chunks), cores())
        batches = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=[chunk.tolist() for chunk in chunks],
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it would draw from the caller's random numbers
        )
        for batch in batches:
            if isinstance(batch, str):
                raise DataError(batch)
            yield batch


def resized(views: Views, to: Preprocessing) -> Views:
    """Training views of an image loader, at the size that another preprocessing has."""
    for positions, images in views:
        yield positions, to.resized(images)


def _collate(items: list[tuple[int, Tensor | str]]) -> tuple[Tensor, Tensor] | str:
    """A batch, or the first fault: an exception would arrive from a worker with its traceback as the message."""
    views = [view for _, view in items if isinstance(view, Tensor)]
    faults = [view for _, view in items if isinstance(view, str)]
    return faults[0] if faults else (torch.tensor([position for position, _ in items]), torch.stack(views))


class _Files(torch.utils.data.Dataset[tuple[int, "Tensor | str"]]):
    def __init__(
        self, images: Images, preprocessing: Preprocessing, augment: AugmentConfig | None, numbers: Tensor | None
    ) -> None:
        self.images, self.preprocessing, self.augment, self.numbers = images, preprocessing, augment, numbers

    def __getitem__(self, position: int) -> tuple[int, Tensor | str]:
        try:
            pixels = torch.from_numpy(read_image(self.images[position]).copy()).permute(2, 0, 1)
        except DataError as error:
            return position, str(error)
        if self.augment is None or self.numbers is None:
            return position, self.preprocessing.resized(pixels)
        view = random_view(pixels[None], self.numbers[position : position + 1], self.augment, self.preprocessing)
        return position, view[0]
