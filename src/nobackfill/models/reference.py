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
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nobackfill.errors import ConfigError, nearest, require
from nobackfill.models.transformer import from_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFIX = "reference/"
VIT_B16 = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "patch_size": 16, "image_size": 224,
}  # fmt: skip


def build_reference(name: str, out_features: int, weights: Path | None = None) -> nn.Module:
    """A backbone by its full name, such as `reference/resnet50`; raises `ConfigError` for an unknown one.

    `weights` names the folder of a pre-trained transformer (transformers' config.json and weights), for the
    ViT alone.
    """
    try:
        build = REFERENCE[name]
    except KeyError:
        raise ConfigError(f"model.backbone: unknown name {name!r}; {nearest(name, REFERENCE)}") from None
    if weights is None:
        return build(out_features)
    if build is not _vit_b16:
        raise ConfigError(f"model.weights: {name!r} does not use it; leave it out")
    return _vit_b16(out_features, weights)


def _resnet(out_features: int, *, layers: tuple[int, ...], bottleneck: bool = True, width: int = 64) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    block = Bottleneck if bottleneck else BasicBlock
    net = ResNet(block, list(layers), width_per_group=width)
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
    from torchvision import models

    net: nn.Module = getattr(models, name)(num_classes=out_features)
    return net


def _vit_b16(out_features: int, weights: Path | None = None) -> nn.Module:
    require("transformers", what="model.backbone: 'reference/vit_b16'")
    from transformers import ViTConfig, ViTModel

    if weights is None:
        return _PooledViT(ViTModel(ViTConfig.from_dict(VIT_B16)), out_features)
    transformer = from_folder(ViTModel, weights, "ViT", "vit")
    for key, wanted in VIT_B16.items():  # a run folder says no more than "vit_b16"
        if getattr(transformer.config, key) != wanted:
            raise ConfigError(
                f"model.weights: {weights}: {key} is {getattr(transformer.config, key)}, expected {wanted} (ViT-B/16)"
            )
    return _PooledViT(transformer, out_features)


class _PooledViT(nn.Module):
    def __init__(self, transformer: PreTrainedModel, out_features: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.embedding_fc = nn.Linear(int(transformer.config.hidden_size), out_features)

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
