"""Backbones by name. Each maps float32 images [n, 3, s, s] to features [n, out_features] by its last layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from nobackfill.config import Modality
from nobackfill.errors import ConfigError, nearest, one_line
from nobackfill.models.array_encoder import VECTORS
from nobackfill.models.clip import TOWERS, build_tower
from nobackfill.models.quicknet import QuickNet
from nobackfill.models.reference import PREFIX, build_reference
from nobackfill.models.sentence import build_sentence
from nobackfill.models.static import build_static
from nobackfill.models.text_source import SENTENCE, STATIC
from nobackfill.models.vector_net import build_vector_net

SMALL_STEM = "small-stem/"
OWN = r"(smallnet|quicknet)([0-9]{1,3})"


@runtime_checkable
class FitsStem(Protocol):
    """A backbone whose first layer is set to the training images before training."""

    def fit_stem(self, images: Tensor) -> None:
        """Set it; images as the network sees them, float32 [n, 3, s, s]."""


def backbone_modality(name: str) -> Modality:
    """What the backbone of this name takes."""
    if name.startswith(VECTORS):
        return "vector"
    return "text" if name == "clip/text" or name.partition(":")[0] in (SENTENCE, STATIC) else "image"


def build_backbone(
    name: str,
    out_features: int,
    *,
    pretrained: bool = False,
    weights: Path | None = None,
    options: Mapping[str, int | float | str] | None = None,
) -> nn.Module:
    """A network with `out_features` outputs.

    Args:
        name: `smallnetW` for a small residual net of width W (8–512); `quicknetW` for plain convolutions;
            `reference/…` for an architecture of the BT² paper; `clip/text` or `clip/image` for a tower of CLIP; a timm
            model name such as `resnet18`; or `small-stem/resnet18`, the same for images of about 32 pixels;
            `vectors/…` for vectors of another model; `sentence` or `static` for texts.
        out_features: size of the output.
        pretrained: timm only: start from the published weights, which must be on this machine already.
        weights: `reference/vit_b16` only: folder of the pre-trained transformer to start from.
        options: `clip/…`, `vectors/…`, `sentence` and `static` only, and needed there: what they are built from.

    Raises:
        ConfigError: for an unknown name, or weights that cannot be had.
    """
    check_weights(name, pretrained, weights)
    described = _described(name, out_features, options or {})
    if described is not None:
        return described
    if options:
        raise ConfigError(f"backbone {name!r} takes no options, found {', '.join(options)}")
    small = re.fullmatch(OWN, name)
    if small:
        width = int(small[2])
        if not 8 <= width <= 512:
            raise ConfigError(f"model.backbone: {name!r}: expected a width of 8 to 512, found {width}")
        return SmallNet(width, out_features) if small[1] == "smallnet" else QuickNet(width, out_features)
    if name.startswith(PREFIX):
        return build_reference(name, out_features, weights)
    if name.startswith(SMALL_STEM):
        return _small_stem(name, out_features)
    return _timm(name, out_features, pretrained)


def check_weights(name: str, pretrained: bool, weights: Path | None) -> None:
    """Raises `ConfigError` where a backbone of this name has no published weights, or takes no folder of them."""
    if weights and not name.startswith(PREFIX):
        raise ConfigError(f"model.weights: {name!r} does not use it; leave it out")
    if pretrained and name.startswith(PREFIX):
        raise ConfigError(f"model.pretrained: {name!r} starts from random weights; set it to false")
    named = name in TOWERS or name.partition(":")[0] in (SENTENCE, STATIC) or name.startswith((SMALL_STEM, VECTORS))
    if pretrained and (named or re.fullmatch(OWN, name)):
        raise ConfigError(f"model.pretrained: {name!r} has no published weights; set it to false")


def _described(name: str, out_features: int, options: Mapping[str, int | float | str]) -> nn.Module | None:
    """A backbone whose sizes stand in its options; None for other names."""
    if name in TOWERS:
        return build_tower(name, options)
    if name.startswith(VECTORS):
        return build_vector_net(name, out_features, options)
    if name == SENTENCE:
        return build_sentence(out_features, options)
    return build_static(out_features, options) if name == STATIC else None


def _small_stem(name: str, out_features: int) -> nn.Module:
    """A timm ResNet for images of 32 pixels or so: its 7×7/2 stem and max-pool would leave an eighth of them."""
    model = _timm(name.removeprefix(SMALL_STEM), out_features, pretrained=False)
    stem = getattr(model, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(model, "maxpool"):
        raise ConfigError(f"model.backbone: {name!r}: only ResNets with one stem convolution can have a small stem")
    model.conv1 = smaller = nn.Conv2d(3, stem.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(smaller.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _timm(name: str, out_features: int, pretrained: bool) -> nn.Module:
    import timm

    # timm takes addresses as names too (hub, local folders): a run folder must not make it fetch or unpickle.
    if ":" in name or "/" in name or not timm.is_model(name):
        raise ConfigError(
            f"model.backbone: unknown name {name!r}; {nearest(name, ['smallnet32', *timm.list_models()])}"
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=out_features)
    except (RuntimeError, OSError, ValueError) as error:
        reason = one_line(error, 200)
        raise ConfigError(f"model.backbone: cannot build {name!r} (pretrained: {pretrained}): {reason}") from error
    return model


class SmallNet(nn.Module):
    """A residual net for small images that trains quickly on a CPU.

    A 3×3 stem with stride 2, then three stages of one residual block each, of width W, 2W and 4W, the later two with
    stride 2; average pool; a linear layer. Made for sides of 8 to 64 pixels; 0.34 M parameters at W = 32.
    """

    def __init__(self, width: int, out_features: int) -> None:
        super().__init__()
        self.stem: nn.Sequential = nn.Sequential(*_convolution(3, width, 3, stride=2), nn.ReLU(inplace=True))
        self.stages: nn.Sequential = nn.Sequential(
            _Block(width, width, stride=1),
            _Block(width, 2 * width, stride=2),
            _Block(2 * width, 4 * width, stride=2),
        )
        self.project: nn.Linear = nn.Linear(4 * width, out_features)

    def forward(self, images: Tensor) -> Tensor:
        """[n, 3, s, s] to [n, out_features]."""
        maps: Tensor = self.stages(self.stem(images))
        features: Tensor = self.project(maps.mean((2, 3)))
        return features


class _Block(nn.Module):
    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(width_in, width_out, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(width_out, width_out, 3),
        )
        self.shortcut = nn.Sequential(*_convolution(width_in, width_out, 1, stride) if width_in != width_out else ())

    def forward(self, maps: Tensor) -> Tensor:
        total: Tensor = self.residual(maps) + self.shortcut(maps)
        return total.relu_()


def _convolution(width_in: int, width_out: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(width_in, width_out, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(width_out)
