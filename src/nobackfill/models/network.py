"""Backbone + head as one module, and the description it is rebuilt from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nobackfill.errors import RunError, nearest, one_line
from nobackfill.models.backbones import build_backbone
from nobackfill.models.heads import HEADS, Head
from nobackfill.models.spec import Architecture


class Network(nn.Module):
    """Images to the dict of a head's parts.

    While it is trained, `own` holds the modules that only the method's loss uses (`Method.modules`): they learn, resume
    and are averaged with the rest, and are dropped at the end.

    The head always runs in float32: norms and inner products of the embedding hold to rounding also where the
    backbone runs in bfloat16.
    """

    own: nn.Module | None

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        backbone_name: str,
        backbone_options: Mapping[str, int | float | str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_module("own", None)
        self.architecture: Architecture = Architecture(
            backbone=backbone_name,
            backbone_options=dict(backbone_options or {}),
            head=head.kind,
            head_options=head.options,
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Preprocessed images float32 [n, 3, s, s], or tokens int64 [n, t], to the parts that the head names."""
        features = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            parts: dict[str, Tensor] = self.head(features.float())
        return parts


def build_network(architecture: Architecture) -> Network:
    """An untrained network of this description, its head folded; raises `RunError` for a head it does not know."""
    if architecture.head not in HEADS:
        raise RunError(f"unknown head {architecture.head!r}; {nearest(architecture.head, HEADS)}")
    # Loading a model must not move the caller's random numbers: a student starts the same whatever its teachers are.
    with torch.random.fork_rng(devices=[]):
        try:
            head = HEADS[architecture.head](**architecture.head_options)
        except (TypeError, RuntimeError, MemoryError) as error:
            reason = one_line(error)
            raise RunError(f"head {architecture.head!r} does not take these options: {reason}") from error
        head.fold()
        backbone = build_backbone(architecture.backbone, head.in_features, options=architecture.backbone_options)
    return Network(backbone, head, architecture.backbone, architecture.backbone_options)
