"""Maps and bases as encoders, and as run folders like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.arrays import Floats
from nobackfill.files import atomic_folder, write_text
from nobackfill.maps.basis import Basis
from nobackfill.maps.linear import LinearMap
from nobackfill.models import Architecture, ArrayEncoder, OlderSpace, runfolder


def map_encoder(method: str, fitted: LinearMap, prefix: OlderSpace) -> ArrayEncoder:
    """X ↦ normalize(W·x + c), whose vectors compare with those of `prefix`."""
    out_dim, in_dim = fitted.weight.shape
    weights = {"backbone.linear.weight": _float(fitted.weight), "backbone.linear.bias": _float(fitted.bias)}
    architecture = Architecture(
        backbone="vectors/linear", backbone_options={"in_features": in_dim}, head="unit", head_options={"dim": out_dim}
    )
    return ArrayEncoder.finished(method, architecture, weights, prefix)


def net_encoder(method: str, weights: Mapping[str, Floats], prefix: OlderSpace) -> ArrayEncoder:
    """X ↦ normalize(W·x + c + net(x)), of the weights of a `vectors/linear+H` backbone."""
    hidden, in_dim = weights["backbone.net.0.weight"].shape
    architecture = Architecture(
        backbone=f"vectors/linear+{hidden}",
        backbone_options={"in_features": in_dim},
        head="unit",
        head_options={"dim": prefix.dim},
    )
    return ArrayEncoder.finished(method, architecture, weights, prefix)


def basis_encoder(method: str, basis: Basis, scale: float, prefix: OlderSpace, hidden: int = 0) -> ArrayEncoder:
    """X ↦ φ of BT² around the frozen x; with `hidden`, a small net that gives zero yet is ready to add to o.

    The net's first layer is random, and drawn by PyTorch, as in training.
    """
    dim, old_dim, extra_dim = len(basis.P), len(basis.B), len(basis.A)
    weights = {"head.basis.P.weight": _float(basis.P), "head.basis.B.weight": _float(basis.B)}
    beside = old_dim if hidden else 0
    if extra_dim:
        # Through the ones the net's last layer, which starts at zero, gets a gradient from the first step.
        weight = np.concatenate([basis.A, np.eye(extra_dim, beside)], axis=1)
        weights |= {"head.extra.weight": _float(weight), "head.extra.bias": _float(basis.a)}
    name = "vectors/keep"
    if hidden:
        name = f"vectors/keep+{hidden}"
        weights |= _net(name, dim, dim + beside)
    architecture = Architecture(
        backbone=name,
        backbone_options={"in_features": dim},
        head="bt2_vectors",
        head_options={"dim": dim, "extra_dim": extra_dim, "old_dim": old_dim, "scale": scale, "beside": beside},
    )
    return ArrayEncoder.finished(method, architecture, weights, prefix)


def save_encoder(encoder: ArrayEncoder, folder: Path, metrics: Mapping[str, object]) -> None:
    """Write a run folder, whole or not at all."""
    with atomic_folder(folder) as working:
        runfolder.save(encoder, working)
        write_text(working / "metrics.json", json.dumps(dict(metrics), indent=2) + "\n")


def _net(name: str, in_dim: int, out_dim: int) -> dict[str, Floats]:
    """Weights of an untrained small net, always the same."""
    import torch

    from nobackfill.models.vector_net import build_vector_net

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build_vector_net(name, out_dim, {"in_features": in_dim}).state_dict()
    return {f"backbone.{key}": value.numpy() for key, value in state.items()}


def _float(values: ArrayLike) -> Floats:
    return np.ascontiguousarray(values, np.float32)
