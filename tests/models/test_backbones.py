from __future__ import annotations

import pytest
import torch

from nobackfill.errors import ConfigError
from nobackfill.models import build_backbone


@pytest.mark.parametrize("name", ["smallnet8", "smallnet32", "resnet10t", "test_vit"])
def test_backbones_have_the_outputs_asked_for(name: str) -> None:
    size = 160 if name == "test_vit" else 32
    with torch.inference_mode():
        assert build_backbone(name, 7).eval()(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_smallnet_takes_small_images(size: int) -> None:
    assert build_backbone("smallnet8", 5)(torch.randn(2, 3, size, size)).shape == (2, 5)


def test_a_small_stem_keeps_the_size_of_small_images() -> None:
    small = build_backbone("small-stem/resnet18", 5).eval()
    assert small.maxpool(small.conv1(torch.zeros(1, 3, 32, 32))).shape[-2:] == (32, 32)  # type: ignore[operator]
    assert small(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    with pytest.raises(ConfigError, match="only ResNets with one stem convolution"):
        build_backbone("small-stem/vit_tiny_patch16_224", 5)
    with pytest.raises(ConfigError, match="unknown name 'resnet1'"):
        build_backbone("small-stem/resnet1", 5)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown name 'resnet19'; did you mean 'resnet1"):
        build_backbone("resnet19", 4)
    with pytest.raises(ConfigError, match="unknown name 'smalnet32'; did you mean 'smallnet32'"):
        build_backbone("smalnet32", 4)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:folder", "../model", "hf_hub:a/b"])
def test_an_address_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown name"):
        build_backbone(name, 4)


def test_weights_that_cannot_be_had_are_said() -> None:
    with pytest.raises(ConfigError, match="'smallnet8' has no published weights"):
        build_backbone("smallnet8", 4, pretrained=True)
