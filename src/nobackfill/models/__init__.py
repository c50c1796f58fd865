"""Backbones, heads, and the Encoder that joins them; saved and loaded as run folders.

The names load what they need when they are first used: specs and fitted maps do without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nobackfill.lazy import lazy_names

if TYPE_CHECKING:
    from nobackfill.models.array_encoder import ArrayEncoder as ArrayEncoder
    from nobackfill.models.backbones import build_backbone as build_backbone
    from nobackfill.models.encoder import Encoder as Encoder
    from nobackfill.models.heads import HEADS as HEADS
    from nobackfill.models.heads import BasisTransform as BasisTransform
    from nobackfill.models.heads import BasisTransformHead as BasisTransformHead
    from nobackfill.models.heads import Head as Head
    from nobackfill.models.heads import PlainHead as PlainHead
    from nobackfill.models.network import Network as Network
    from nobackfill.models.runfolder import load as load
    from nobackfill.models.runfolder import save as save
    from nobackfill.models.spec import Architecture as Architecture
    from nobackfill.models.spec import EmbeddingSpec as EmbeddingSpec
    from nobackfill.models.spec import OlderSpace as OlderSpace

_MODULES = {
    "HEADS": "heads",
    "Architecture": "spec",
    "ArrayEncoder": "array_encoder",
    "BasisTransform": "heads",
    "BasisTransformHead": "heads",
    "EmbeddingSpec": "spec",
    "Encoder": "encoder",
    "Head": "heads",
    "Network": "network",
    "PlainHead": "heads",
    "OlderSpace": "spec",
    "build_backbone": "backbones",
    "load": "runfolder",
    "save": "runfolder",
}
__all__ = sorted(_MODULES)  # noqa: PLE0605
__getattr__ = lazy_names(__name__, _MODULES)
