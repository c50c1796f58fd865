"""`fct`: forward compatible training (Ramanujan et al., CVPR 2022). A net takes the gallery into the new space.

With a side vector of each item, stored beside its old one, `fct_side` takes both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.arrays import Floats
from nobackfill.maps import budget
from nobackfill.maps.task import Candidate, Inputs, Task, finished, kept
from nobackfill.models import Architecture, ArrayEncoder, OlderSpace

if TYPE_CHECKING:
    from torch import Tensor


def fit_fct(task: Task) -> Iterator[Candidate]:
    """Without side vectors, and with them where they are given."""
    yield _chosen(task, "fct", None)
    if task.side_file is not None and task.side is not None:
        yield _chosen(task, "fct_side", task.rows_of(task.side_file))


def relu_encoder(method: str, weights: dict[str, Floats], prefix: OlderSpace, first: int | None = None) -> ArrayEncoder:
    """Of a folded net; with `first`, its rows are two vectors side by side, the first of this size."""
    hidden, in_features = weights["backbone.net.0.weight"].shape
    architecture = Architecture(
        backbone=f"vectors/relu+{hidden}",
        backbone_options={"in_features": in_features, **({} if first is None else {"first": first})},
        head="unit",
        head_options={"dim": prefix.dim},
    )
    return ArrayEncoder.finished(method, architecture, weights, prefix)


def squared_error(mapped: Tensor, wanted: Tensor) -> Tensor:
    """‖g(φ_old) − φ_new‖², the mean over rows [b, d]."""
    return (mapped - wanted).square().sum(dim=1).mean()


def _chosen(task: Task, name: str, side: Floats | None) -> Candidate:
    """At the rate that searches better on the validation rows."""
    inputs: Inputs = "x" if side is None else "old + side"
    before = finished(task, name, inputs)
    if before is not None:
        return before
    old, new, validation, first = task.rows_of(task.x_file), task.rows_of(task.y_file), task.x, None
    if side is not None and task.side is not None:
        first = old.shape[1]
        old, validation = np.concatenate([old, side], axis=1), np.concatenate([validation, task.side], axis=1)
    tried = []
    for rate in budget.RATES:
        weights, epochs = _train(old, new, task.settings.hidden, rate, task.settings.seed, name)
        encoder = relu_encoder(name, weights, task.prefix, first)
        tried.append((task.score_of(encoder.encode(validation)), f"{epochs} epochs at {rate:g}", encoder))
    score, choice, encoder = max(tried, key=lambda one: one[0])
    return kept(task, name, encoder, choice, score, inputs)


def _train(old: Floats, new: Floats, hidden: int, rate: float, seed: int, name: str) -> tuple[dict[str, Floats], int]:
    import torch

    from nobackfill.training.small_nets import descend, folded, relu_net

    x, y = torch.from_numpy(old), torch.from_numpy(new)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = relu_net(old.shape[1], hidden, new.shape[1])
    title = f"training {name} at {rate:g}"

    def loss(rows: Tensor) -> Tensor:
        return squared_error(net(x[rows]), y[rows])

    epochs = budget.epochs_for(len(x), budget.MOST_FROM_NOTHING)
    descend(net.parameters(), loss, len(x), rate, seed, title, epochs, budget.BATCH)
    return folded(net), epochs
