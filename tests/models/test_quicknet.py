from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import tiny_config

from nobackfill.errors import ConfigError
from nobackfill.models import build_backbone
from nobackfill.models.quicknet import EPSILON, QuickNet
from nobackfill.models.stages import stages
from nobackfill.training import train


def test_the_stem_whitens_the_patches_of_the_images() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(50, 3, 16, 16, generator=generator)
    images = images + 3 * torch.randn(50, 3, 1, 1, generator=generator)  # neighbours that agree
    net = QuickNet(8, 4)
    net.fit_stem(images)
    with torch.no_grad():
        responses = torch.nn.functional.conv2d(images, net.stem.weight, stride=2)
    patches = responses.permute(0, 2, 3, 1).reshape(-1, 24).double()
    covariance = torch.cov(patches[:, :12].T)
    powers = covariance.diagonal()
    torch.testing.assert_close(covariance, torch.diag(powers), atol=1e-5, rtol=0)
    assert (1 - powers).min() > 0
    assert (1 - powers).max() < 2 * EPSILON  # nearly one, a little less for the weak directions
    torch.testing.assert_close(patches[:, 12:], -patches[:, :12])


def test_a_run_keeps_the_stem_of_its_images_and_starts_from_another_s(tmp_path: Path) -> None:
    settings = {"model__backbone": "quicknet8", "data__image_size": 17, "data__augment": {"crop": "none"}}
    run = train(tiny_config("independent", **settings), tmp_path / "run")
    stem = load_file(run / "model.safetensors")["backbone.stem.weight"]
    assert stem.shape == (24, 3, 2, 2)
    assert torch.equal(stem[:12], -stem[12:])
    assert "backbone.stem.weight" in dict.fromkeys(load_file(run / "model.safetensors"))
    warm = tiny_config("independent", **settings, init_from=str(run), data__classes="first-half")
    assert torch.equal(load_file(train(warm, tmp_path / "warm") / "model.safetensors")["backbone.stem.weight"], stem)


def test_stages_run_from_the_stem_to_the_output_layer() -> None:
    net = build_backbone("quicknet8", 4)
    stage = stages(net, "quicknet8")
    assert stage["stem.weight"] == 0
    assert stage["blocks.0.convolution1.weight"] < stage["blocks.2.norm2.bias"] < stage["project.weight"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__backbone": "quicknet4"}, "'quicknet4': expected a width of 8 to 512, found 4"),
        ({"model__backbone": "quicknet8", "data__image_size": 8}, "'quicknet8' does not take images of 8×8"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny_config("independent", **changes), tmp_path / "run")
