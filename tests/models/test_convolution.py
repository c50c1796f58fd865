from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d

from nobackfill.models.convolution import WIDE_ENOUGH, Convolution3, side_by_side


@pytest.mark.parametrize(
    ("n", "height", "width"), [(48, 3, 3), (24, 7, 7), (12, 5, 4), (7, 1, 1), (16, 7, 2), (3, 9, 9)]
)
def test_gradients_are_the_library_s(n: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Convolution3(5, 8)
    maps = torch.randn(n, 5, height, width, generator=generator).to(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(n, 8, height, width, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(maps)
        plain = conv2d(maps.bfloat16(), layer.weight.bfloat16(), padding=1)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, plain)
    (out.float() * weights).sum().backward()

    # The same in float64, from the values that bf16 keeps.
    slow = maps.detach().bfloat16().double().requires_grad_()
    weight = layer.weight.detach().bfloat16().double().requires_grad_()
    loss = (conv2d(slow, weight, padding=1) * weights.bfloat16().double()).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for found, expected in ((maps.grad, slow.grad), (layer.weight.grad, weight.grad)):
        assert found is not None
        assert expected is not None
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < 0.01 * expected.abs().max()


def test_only_short_rows_in_bf16_are_laid_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def noted(maps: torch.Tensor, images: int) -> torch.Tensor:
        used.append(maps.shape[-1])
        return side_by_side(maps, images)

    monkeypatch.setattr("nobackfill.models.convolution.side_by_side", noted)
    layer = Convolution3(3, 8)
    for side in (WIDE_ENOUGH - 1, WIDE_ENOUGH):
        layer(torch.randn(4, 3, side, side)).sum().backward()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(torch.randn(4, 3, side, side)).float().sum().backward()
            with torch.no_grad():
                layer(torch.randn(4, 3, side, side))
    assert used == [WIDE_ENOUGH - 1] * 2  # the maps and their gradient, once


def test_a_frozen_layer_hands_the_gradient_on() -> None:
    layer = Convolution3(3, 8).requires_grad_(False)
    maps = torch.randn(4, 3, 5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(maps).float().sum().backward()
    assert maps.grad is not None
    assert layer.weight.grad is None


def test_images_side_by_side_are_parted_by_zeros() -> None:
    maps = torch.arange(1.0, 25).view(4, 1, 2, 3)
    rows = side_by_side(maps, 2)
    assert rows.shape == (2, 1, 2, 8)
    assert rows[0, 0].tolist() == [[1, 2, 3, 0, 7, 8, 9, 0], [4, 5, 6, 0, 10, 11, 12, 0]]
