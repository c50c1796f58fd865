"""Random training views as pure functions of an image and five numbers.

The numbers are drawn once an epoch from (seed, epoch) and looked up by the image's index, so a view does not depend on
batch order, on the number of workers, or on where training was resumed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nobackfill.config import AugmentConfig
from nobackfill.data.preprocessing import Preprocessing


def draws(seed: int, epoch: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 [count, 5]: flip, row, column, area, aspect."""
    generator = np.random.default_rng([seed, epoch, 1])
    return torch.from_numpy(generator.random((count, 5), dtype=np.float32))


def random_view(images: Tensor, numbers: Tensor, augment: AugmentConfig, preprocessing: Preprocessing) -> Tensor:
    """Training views: uint8 [n, 3, h, w] and numbers [n, 5] to uint8 [n, 3, image_size, image_size]."""
    flip, row, column, area, aspect = numbers.unbind(1)
    if augment.crop == "resized":
        images = _resized_crops(images, torch.stack([row, column, area, aspect], dim=1), preprocessing.image_size)
    else:
        images = preprocessing.fit(images)
    if augment.crop == "padded":
        images = _padded_crops(images, row, column, augment.padding)
    if augment.flip:
        images = torch.where((flip < 0.5).view(-1, 1, 1, 1), images.flip(-1), images)
    return images


def _padded_crops(images: Tensor, row: Tensor, column: Tensor, padding: int) -> Tensor:
    size = images.shape[-1]
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    span = torch.arange(size, device=images.device)
    top = (row * (2 * padding + 1)).long()[:, None] + span
    left = (column * (2 * padding + 1)).long()[:, None] + span
    image = torch.arange(len(images), device=images.device)[:, None, None]
    # The gather gives [n, s, s, 3]: one index per pixel moves all three channels.
    return padded.permute(0, 2, 3, 1)[image, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)


def _resized_crops(images: Tensor, numbers: Tensor, size: int) -> Tensor:
    """8–100 % of the area at aspect 3/4–4/3, stretched to the square; a box too large is cut to the image."""
    from torchvision.transforms.v2 import functional  # noqa: PLC0415

    height, width = images.shape[-2:]
    views = []
    for image, (row, column, area, aspect) in zip(images, numbers.tolist(), strict=True):
        pixels = height * width * (0.08 + 0.92 * area)
        ratio = math.exp((2 * aspect - 1) * math.log(4 / 3))
        crop_width = min(width, max(1, round(math.sqrt(pixels * ratio))))
        crop_height = min(height, max(1, round(math.sqrt(pixels / ratio))))
        top, left = int(row * (height - crop_height + 1)), int(column * (width - crop_width + 1))
        views.append(functional.resized_crop(image, top, left, crop_height, crop_width, [size, size], antialias=True))
    return torch.stack(views)
