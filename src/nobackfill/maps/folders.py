"""Maps and bases as encoders, and as run folders like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.files import atomic_folder, write_text
from nobackfill.maps.basis import Basis
from nobackfill.maps.linear import LinearMap
from nobackfill.models import Encoder, Network, OlderSpace, build_backbone, runfolder
from nobackfill.models.finished import finished_encoder
from nobackfill.models.heads import FrozenBasisHead, Head, UnitHead


def map_encoder(method: str, found: LinearMap, prefix: OlderSpace) -> Encoder:
    """X ↦ normalize(W·x + c), whose vectors compare with those of `prefix`."""
    out_dim, in_dim = found.weight.shape
    tensors = {"linear.weight": _float(found.weight), "linear.bias": _float(found.bias)}
    return _encoder(method, "vectors/linear", UnitHead(out_dim), in_dim, tensors, {}, prefix)


def basis_encoder(method: str, found: Basis, scale: float, prefix: OlderSpace, hidden: int = 0) -> Encoder:
    """X ↦ φ of BT² around the frozen x; with `hidden`, a small net that gives zero yet is ready to add to o."""
    dim, old_dim, extra_dim = len(found.P), len(found.B), len(found.A)
    tensors = {"basis.P.weight": _float(found.P), "basis.B.weight": _float(found.B)}
    beside = old_dim if hidden else 0
    if extra_dim:
        # Through the ones the net's last layer, which starts at zero, gets a gradient from the first step.
        weight = np.concatenate([found.A, np.eye(extra_dim, beside)], axis=1)
        tensors |= {"extra.weight": _float(weight), "extra.bias": _float(found.a)}
    head = FrozenBasisHead(dim, extra_dim, old_dim, scale, beside)
    name = f"vectors/keep+{hidden}" if hidden else "vectors/keep"
    return _encoder(method, name, head, dim, {}, tensors, prefix)


def save_encoder(encoder: Encoder, folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write a run folder, whole or not at all."""
    with atomic_folder(folder) as working:
        runfolder.save(encoder, working)
        write_text(working / "metrics.json", json.dumps(dict(metrics), indent=2) + "\n")


def _encoder(
    method: str,
    name: str,
    head: Head,
    in_dim: int,
    backbone_tensors: Mapping[str, Tensor],
    head_tensors: Mapping[str, Tensor],
    prefix: OlderSpace,
) -> Encoder:
    head.fold()
    options = {"in_features": in_dim}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(build_backbone(name, head.in_features, options=options), head, name, options)
    if backbone_tensors:
        network.backbone.load_state_dict(dict(backbone_tensors))
    head.load_state_dict(dict(head_tensors))
    return finished_encoder(network, method, VectorPreprocessing(input_dim=in_dim), (prefix,))


def _float(values: Any) -> Tensor:
    return torch.from_numpy(values).float()
