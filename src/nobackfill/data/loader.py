"""Batches of views from an `ImageSet`: arrays stay on the device, files are decoded by worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nobackfill.config import AugmentConfig
from nobackfill.data.augment import random_view
from nobackfill.data.imageset import Images
from nobackfill.data.preprocessing import Preprocessing, VectorPreprocessing, read_image
from nobackfill.errors import DataError
from nobackfill.machine import cores


class Loader:
    """Serves views of images in batches, on `device`.

    Args:
        images: uint8 [n, h, w, 3], possibly memory-mapped, or image files; or vectors [n, dim].
        preprocessing: the encoder's view.
        device: where batches are wanted.
        workers: processes that decode files; 0 decodes in this one.
        resident: copy an array to the device once, for many passes; else it goes there batch by batch.

    Attributes:
        pixels: the whole array on the device, if it is resident.
    """

    def __init__(
        self,
        images: Images,
        preprocessing: Preprocessing | VectorPreprocessing,
        device: torch.device,
        workers: int = 0,
        *,
        resident: bool = False,
    ) -> None:
        self.images = images
        self.preprocessing = preprocessing
        self.device = device
        self.workers = workers
        self.pixels = torch.from_numpy(images).to(device) if resident and isinstance(images, np.ndarray) else None

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Evaluation views: (positions int64 [b], what the network sees float32 [b, 3, s, s]), in `order`."""
        for positions, views in self.views(order, batch_size):
            yield positions, self.preprocessing.normalize(views)

    def views(
        self,
        order: NDArray[np.int64],
        batch_size: int,
        augment: AugmentConfig | None = None,
        numbers: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (positions int64 [b], views uint8 [b, 3, s, s] on the device), in `order`.

        The positions are on the device where the array is resident, else on the CPU. With `augment` the views are
        random, as `numbers` [n, 5] (`augment.draws`) has them for each position.
        """
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        if not isinstance(self.images, np.ndarray):
            for positions, views in self._decoded(chunks, augment, numbers):
                yield positions, views.to(self.device, non_blocking=True)
            return
        place = torch.device("cpu") if self.pixels is None else self.device
        whole = torch.from_numpy(order).to(place)  # once: a copy at every step would hold the device up
        numbers = None if numbers is None else numbers.to(place)
        for start, chunk in zip(range(0, len(order), batch_size), chunks, strict=True):
            positions = whole[start : start + batch_size]
            raw = (
                torch.from_numpy(self.images[chunk]).to(self.device) if self.pixels is None else self.pixels[positions]
            )
            if isinstance(self.preprocessing, VectorPreprocessing):
                yield positions, raw
                continue
            raw = raw.permute(0, 3, 1, 2)
            if augment is None or numbers is None:
                yield positions, self.preprocessing.fit(raw)
            else:
                yield positions, random_view(raw, numbers[positions].to(self.device), augment, self.preprocessing)

    def _decoded(
        self, chunks: list[NDArray[np.int64]], augment: AugmentConfig | None, numbers: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        assert isinstance(self.preprocessing, Preprocessing)  # noqa: S101 (vectors come as an array)
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
            return position, self.preprocessing.fit(pixels)
        view = random_view(pixels[None], self.numbers[position : position + 1], self.augment, self.preprocessing)
        return position, view[0]
