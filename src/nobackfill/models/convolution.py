"""A 3×3 convolution whose weights' gradient is computed from several images at once, where that is faster."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

WIDE_ENOUGH = 8  # pixels: from maps of this side on, the library's rows are long enough
ROW = 64  # pixels of a row of images side by side


class Convolution3(nn.Conv2d):
    """A 3×3 convolution with a padding of 1 and no bias, for channels-last maps.

    On a CPU in bf16 the library computes the weights' gradient row by row: on maps of 3×3 and 7×7 pixels, with rows far
    shorter than what the processor multiplies at once, that took as long as the rest of the step. So the images of a
    batch are laid side by side there, a column of zeros after each: long rows, the same sums.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """[n, width_in, h, w] to [n, width_out, h, w]."""
        bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if not (bf16 and maps.device.type == "cpu" and torch.is_grad_enabled() and maps.shape[-1] < WIDE_ENOUGH):
            return super().forward(maps)
        out: Tensor = _SideBySide.apply(maps, self.weight)
        return out


class _SideBySide(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: Tensor, weight: Tensor) -> Tensor:
        context.dtypes = maps.dtype, weight.dtype
        maps, weight = maps.bfloat16(), weight.bfloat16()
        context.save_for_backward(maps, weight)
        with torch.autocast("cpu", enabled=False):
            return conv2d(maps, weight, padding=1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        maps, weight = context.saved_tensors
        of_maps = of_weight = None
        if context.needs_input_grad[0]:
            of_maps = _gradients(gradient, maps, weight, [True, False, False])[0].to(context.dtypes[0])
        if context.needs_input_grad[1]:
            # As many images in a row as divide the batch: an incomplete row would have to be copied twice.
            images = math.gcd(len(maps), 1 << (ROW // (maps.shape[-1] + 1)).bit_length() - 1)
            rows, gradient_rows = side_by_side(maps, images), side_by_side(gradient, images)
            of_weight = _gradients(gradient_rows, rows, weight, [False, True, False])[1].to(context.dtypes[1])
        return of_maps, of_weight


def _gradients(gradient: Tensor, maps: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, ...]:
    one, none = [1, 1], [0, 0]
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, one, one, one, False, none, 1, wanted
    )
    return gradients


def side_by_side(maps: Tensor, images: int) -> Tensor:
    """[n, c, h, w] to [n / images, c, h, images · (w + 1)], channels last: each image and a column of zeros."""
    n, channels, height, width = maps.shape
    rows = maps.new_zeros(n // images, height, images, width + 1, channels)
    rows[:, :, :, :width] = maps.permute(0, 2, 3, 1).view(-1, images, height, width, channels).transpose(1, 2)
    return rows.view(n // images, height, -1, channels).permute(0, 3, 1, 2)
