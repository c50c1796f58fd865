"""Backbones, heads, and the Encoder that joins them; saved and loaded as run folders."""

from nobackfill.models.backbones import build_backbone
from nobackfill.models.encoder import Encoder
from nobackfill.models.heads import HEADS, BasisTransform, BasisTransformHead, Head, PlainHead
from nobackfill.models.network import Architecture, Network
from nobackfill.models.runfolder import load, save
from nobackfill.models.spec import EmbeddingSpec, OlderSpace

__all__ = [
    "HEADS",
    "Architecture",
    "BasisTransform",
    "BasisTransformHead",
    "EmbeddingSpec",
    "Encoder",
    "Head",
    "Network",
    "OlderSpace",
    "PlainHead",
    "build_backbone",
    "load",
    "save",
]
