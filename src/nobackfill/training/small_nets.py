"""Small nets between spaces, trained on vectors that fit in memory: Adam, its rate falling to zero along a cosine.

The loop of `training.loop` reads samples, keeps checkpoints and runs on several devices; a net that trains in a minute
needs none of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from nobackfill.arrays import Floats
from nobackfill.progress import track


def descend(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[Tensor], Tensor],
    count: int,
    rate: float,
    seed: int,
    title: str,
    epochs: int,
    batch: int,
) -> None:
    """Minimise a loss over rows 0 … count − 1.

    Args:
        parameters: what is trained.
        loss: of the rows of a batch, int64 [b], b ≥ 2.
        count: rows.
        rate: of Adam, at the start.
        seed: of the order of rows.
        title: of the progress line.
        epochs: how often each row is seen, but for the rest of an epoch that fills no batch.
        batch: rows at a time; all of them, if there are fewer.
    """
    optimizer = torch.optim.Adam(parameters, lr=rate)
    generator = torch.Generator().manual_seed(seed)
    size = min(batch, count)
    batches = count // size  # whole ones: batch norm takes statistics of each
    for step in track(range(epochs * batches), title, epochs * batches):
        if step % batches == 0:
            order = torch.randperm(count, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / (epochs * batches))) / 2
        start = step % batches * size
        optimizer.zero_grad()
        loss(order[start : start + size]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def relu_net(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    """Two hidden layers, each with batch norm and ReLU, then a linear one; see `folded`."""
    return nn.Sequential(
        nn.Linear(in_features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, out_features),
    )  # fmt: skip


@torch.no_grad()
def folded(net: nn.Sequential) -> dict[str, Floats]:
    """Weights of a `vectors/relu+H` backbone that computes what a trained `relu_net` does in evaluation mode."""
    weights: dict[str, Tensor] = {}
    for place, (linear, norm) in enumerate(((net[0], net[1]), (net[3], net[4]))):
        assert isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d)  # noqa: S101, PT018 (for mypy)
        assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101, PT018 (for mypy)
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        weights[f"backbone.net.{2 * place}.weight"] = factor[:, None] * linear.weight
        weights[f"backbone.net.{2 * place}.bias"] = norm.bias - factor * norm.running_mean
    last = net[6]
    assert isinstance(last, nn.Linear)  # noqa: S101 (for mypy)
    weights |= {"backbone.net.4.weight": last.weight, "backbone.net.4.bias": last.bias}
    return arrays_of(weights)


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, Floats]:
    """Float32 copies of tensors."""
    return {name: np.array(each.detach().numpy(), np.float32) for name, each in tensors.items()}
