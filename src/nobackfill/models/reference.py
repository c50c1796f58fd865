"""The architectures of the BT² paper, with the parameter names of its public checkpoints (arXiv 2211.03989, section 4).

Each is a backbone: images [n, 3, s, s] to features [n, out_features]. The ResNets project in their last block: its
third convolution and its shortcut lead to `out_features` channels, then ReLU and average pool, so their features are
never negative. AlexNet and VGG are torchvision's with `out_features` classes. The ViT ends in a linear layer on the
pooled token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nobackfill.errors import ConfigError, nearest

PREFIX = "reference/"
WIDTH = 768  # of ViT-B


def build_reference(name: str, out_features: int, weights: Path | None = None) -> nn.Module:
    """A backbone by its full name, such as `reference/resnet50`; raises `ConfigError` for an unknown one.

    `weights` names the folder of a pre-trained transformer (transformers' config.json and model.safetensors), for the
    ViT alone.
    """
    try:
        build = REFERENCE[name]
    except KeyError:
        raise ConfigError(f"model.backbone: unknown name {name!r}; {nearest(name, REFERENCE)}") from None
    if weights is None:
        return build(out_features)
    if build is not _vit_b16:
        raise ConfigError(f"model.weights: {name!r} has no use for it; leave it out")
    return _vit_b16(out_features, weights)


def _resnet(out_features: int, *, layers: tuple[int, ...], bottleneck: bool = True, width: int = 64) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: PLC0415

    block = Bottleneck if bottleneck else BasicBlock
    net: Any = ResNet(block, list(layers), width_per_group=width)
    inputs = 512 * block.expansion
    shortcut = None
    if inputs != out_features:
        shortcut = nn.Sequential(nn.Conv2d(inputs, out_features, 1, bias=False), nn.BatchNorm2d(out_features))
    if bottleneck:
        last = Bottleneck(inputs, 512, downsample=shortcut, base_width=width)
        last.conv3 = nn.Conv2d(last.conv3.in_channels, out_features, 1, bias=False)
        last.bn3 = nn.BatchNorm2d(out_features)
    else:
        last = BasicBlock(inputs, out_features, downsample=shortcut)
    net.layer4[-1] = last
    net.fc = nn.Identity()
    for module in net.modules():  # the paper's nets start from PyTorch's defaults, not from torchvision's
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    backbone: nn.Module = net
    return backbone


def _torchvision(out_features: int, *, name: str) -> nn.Module:
    from torchvision import models  # noqa: PLC0415

    net: nn.Module = getattr(models, name)(num_classes=out_features)
    return net


def _vit_b16(out_features: int, weights: Path | None = None) -> nn.Module:
    try:
        from transformers import ViTConfig, ViTModel  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "model.backbone: 'reference/vit_b16' needs the extra 'text': pip install 'nobackfill[text]'"
        ) from error
    if weights is None:
        return _PooledViT(ViTModel(ViTConfig()), out_features)
    try:
        # Never a hub's name, never a pickle: a folder with safetensors, or nothing.
        found = ViTModel.from_pretrained(str(weights.resolve(strict=True)), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"model.weights: {weights}: no pre-trained ViT as safetensors there: {reason}") from error
    if found.config.hidden_size != WIDTH:
        raise ConfigError(f"model.weights: {weights}: width {found.config.hidden_size}, expected {WIDTH} (ViT-B)")
    return _PooledViT(found, out_features)


class _PooledViT(nn.Module):
    def __init__(self, transformer: nn.Module, out_features: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.embedding_fc = nn.Linear(WIDTH, out_features)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.embedding_fc(self.transformer(images).pooler_output)
        return features


_BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": partial(_resnet, layers=(2, 2, 2, 2), bottleneck=False),
    "resnet50": partial(_resnet, layers=(3, 4, 6, 3)),
    "resnet101": partial(_resnet, layers=(3, 4, 23, 3)),
    "wide_resnet50_2": partial(_resnet, layers=(3, 4, 6, 3), width=128),
    "wide_resnet101_2": partial(_resnet, layers=(3, 4, 23, 3), width=128),
    "alexnet": partial(_torchvision, name="alexnet"),
    "vgg13_bn": partial(_torchvision, name="vgg13_bn"),
    "vgg19_bn": partial(_torchvision, name="vgg19_bn"),
    "vit_b16": _vit_b16,
}
REFERENCE = {f"{PREFIX}{name}": build for name, build in _BUILDERS.items()}
