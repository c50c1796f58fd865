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

SMALL_SIDE = 32  # pixels; up to it, and on any accelerator, one matrix product beats a call for each image


def draws(seed: int, epoch: int, count: int, augment: AugmentConfig | None = None) -> Tensor:
    """Uniform numbers in [0, 1), float32 [count, 7]: flip, row, column, area, aspect, and the centre of the cut-out."""
    numbers = np.random.default_rng([seed, epoch, 1]).random((count, 5), dtype=np.float32)
    if augment is not None and augment.flip == "alternating":
        side = np.random.default_rng([seed, 0, 1]).random((count, 5), dtype=np.float32)[:, 0] < 0.5
        numbers[:, 0] = np.where(side ^ (epoch % 2 == 1), 0.0, 0.5)  # below one half: mirrored
    # Numbers of their own, so that a run without a cut-out has the views it has always had.
    centre = np.random.default_rng([seed, epoch, 2]).random((count, 2), dtype=np.float32)
    return torch.from_numpy(np.hstack([numbers, centre]))


def random_view(images: Tensor, numbers: Tensor, augment: AugmentConfig, preprocessing: Preprocessing) -> Tensor:
    """Training views: uint8 [n, 3, h, w] and numbers [n, 7] to uint8 [n, 3, image_size, image_size]."""
    flip, row, column, area, aspect = numbers[:, :5].unbind(1)
    if augment.crop == "resized":
        images = _resized_crops(images, torch.stack([row, column, area, aspect], dim=1), preprocessing.image_size)
    else:
        images = preprocessing.resized(images)
    mirrored = (flip < 0.5) & bool(augment.flip)
    if augment.crop == "padded":
        images = _padded_crops(images, row, column, mirrored, augment)
    elif augment.flip:
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    return _cut_out(images, numbers[:, 5:], augment.cutout, preprocessing) if augment.cutout else images


def _cut_out(images: Tensor, centres: Tensor, side: int, preprocessing: Preprocessing) -> Tensor:
    """Cut-out (arXiv 1708.04552): a square of the mean colour, its centre anywhere, so that it may reach outside."""
    size = images.shape[-1]
    start = (centres * size).long() - side // 2
    place = torch.arange(size, device=images.device)
    inside = (place >= start[..., None]) & (place < start[..., None] + side)  # [n, 2, size]: rows, columns
    colour = torch.tensor(preprocessing.mean, device=images.device).mul(255).round().to(torch.uint8).view(1, 3, 1, 1)
    return torch.where((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], colour, images)


def _padded_crops(images: Tensor, row: Tensor, column: Tensor, mirrored: Tensor, augment: AugmentConfig) -> Tensor:
    size, padding = images.shape[-1], augment.padding
    if augment.padding_mode == "reflect":
        padded = torch.nn.functional.pad(images.float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    else:
        padded = torch.nn.functional.pad(images, (padding,) * 4)
    span = torch.arange(size, device=images.device)
    top = (row * (2 * padding + 1)).long()[:, None] + span
    left = (column * (2 * padding + 1)).long()[:, None] + torch.where(mirrored[:, None], span.flip(0), span)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    # The gather gives [n, s, s, 3]: one index per pixel moves all three channels.
    return padded.permute(0, 2, 3, 1)[image, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)


def _resized_crops(images: Tensor, numbers: Tensor, size: int) -> Tensor:
    """8–100 % of the area at aspect 3/4–4/3, stretched to the square; a box too large is cut to the image."""
    height, width = images.shape[-2:]
    boxes = _boxes(numbers.double(), height, width)
    if images.device.type != "cpu" or max(height, width) <= SMALL_SIDE:
        rows = _resampling(boxes[:, 0], boxes[:, 2], height, size)
        columns = _resampling(boxes[:, 1], boxes[:, 3], width, size)
        resized = rows[:, None] @ images.float() @ columns[:, None].transpose(-1, -2)
        return resized.round_().clamp_(0, 255).to(torch.uint8)
    from torchvision.transforms.v2 import functional  # two seconds that small images do not need

    views = [
        functional.resized_crop(image, *box, [size, size], antialias=True)
        for image, box in zip(images, boxes.tolist(), strict=True)
    ]
    return torch.stack(views)


def _boxes(numbers: Tensor, height: int, width: int) -> Tensor:
    """Random boxes int64 [n, 4] from numbers [n, 4]: top, left, height, width."""
    row, column, area, aspect = numbers.unbind(1)
    pixels = height * width * (0.08 + 0.92 * area)
    ratio = torch.exp((2 * aspect - 1) * math.log(4 / 3))
    crop_width = torch.sqrt(pixels * ratio).round().clamp(1, width)
    crop_height = torch.sqrt(pixels / ratio).round().clamp(1, height)
    top, left = (row * (height - crop_height + 1)).floor(), (column * (width - crop_width + 1)).floor()
    return torch.stack([top, left, crop_height, crop_width], dim=1).long()


def _resampling(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Matrices float32 [n, size, side] that resample `length` pixels from `start` on to `size`, antialiased.

    The triangle filter of bilinear resizing: its width is that of an output pixel where the image shrinks, and one
    input pixel where it grows. All boxes of a batch become one matrix product on the device.
    """
    scale = (length / size)[:, None, None]
    support = scale.clamp(min=1)
    centre = scale * (torch.arange(size, device=start.device)[:, None] + 0.5)
    pixel = torch.arange(side, device=start.device) - start[:, None, None]
    weights = (1 - ((pixel + 0.5 - centre) / support).abs()).clamp(min=0)
    weights = torch.where((pixel >= 0) & (pixel < length[:, None, None]), weights, 0)
    return (weights / weights.sum(-1, keepdim=True)).float()
