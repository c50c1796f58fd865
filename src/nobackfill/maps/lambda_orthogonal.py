"""`lambda_orthogonal` (Ricci et al., NeurIPS 2025): a nearly orthogonal backward map, and a forward map to meet it.

New vectors n go into the old space by B, which keeps their geometry: B(n) searches the gallery as it is. When the
stored vectors o are rewritten by F, B(n) searches F(o), and does better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.arrays import Floats
from nobackfill.files import read_npy
from nobackfill.maps import budget
from nobackfill.maps.folders import map_encoder, net_encoder
from nobackfill.maps.linear import LinearMap, procrustes
from nobackfill.maps.moments import moments
from nobackfill.maps.task import Candidate, Task, finished, kept
from nobackfill.models import ArrayEncoder, OlderSpace

if TYPE_CHECKING:
    from torch import Tensor

NAME = "lambda_orthogonal"
THRESHOLD = 0.5  # λ as a fraction of √d, the norm of I
STEEPNESS, TEMPERATURE = 10.0, 0.1


@dataclass(frozen=True)
class Maps:
    """Both maps at one learning rate."""

    backward: LinearMap
    forward: dict[str, Floats]
    epochs: int


def fit_lambda_orthogonal(task: Task) -> Iterator[Candidate]:
    """B, into the untouched gallery, then F with B; at the rate at which B(n) searches F(o) better."""
    to_old = dataclasses.replace(task, direction="to-old", x=task.y, y=task.x)  # B's way: its folder and its searches
    before = finished(to_old, NAME), finished(task, NAME)
    if before[0] is not None and before[1] is not None:
        yield before[0]
        yield dataclasses.replace(before[1], query_folder=before[0].folder)
        return
    tried = []
    for rate in budget.RATES:
        maps = _train(task, rate)
        back = map_encoder(NAME, maps.backward, task.x_space)
        ahead = _forward(maps, back)
        queries = back.encode(task.y)
        untouched = to_old.score_of(queries)
        tried.append((task.score_of(ahead.encode(task.x), queries), untouched, back, ahead, maps, rate))
    score, untouched, back, ahead, maps, rate = max(tried, key=lambda one: one[0])
    weight = maps.backward.weight
    choice = f"{maps.epochs} epochs at {rate:g}; off orthogonal by {float(deviation_of(weight)):.2f}"
    first = kept(to_old, NAME, back, choice, untouched)
    yield first
    yield dataclasses.replace(kept(task, NAME, ahead, choice, score), query_folder=first.folder)


def deviation_of(weight: Floats | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """‖W·Wᵀ − I‖, of the shorter side where W is not square."""
    gram = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
    return float(np.linalg.norm(gram - np.eye(len(gram))))


def pair_loss(forward: Tensor, backward: Tensor, old: Tensor, weight: Tensor, labels: Tensor | None) -> Tensor:
    """‖F(o) − B(n)‖² + ‖B(n) − o‖² + SupCon + σ(10·(‖WWᵀ − I‖ − λ))·‖WWᵀ − I‖, λ = √d/2.

    Args:
        forward: F(o) [b, d_o].
        backward: B(n) [b, d_o].
        old: o [b, d_o].
        weight: W of B, [d_o, d].
        labels: int64 [b]; without them no SupCon term.
    """
    import torch

    gram = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
    off = torch.linalg.matrix_norm(gram - torch.eye(len(gram)))
    gate = torch.sigmoid(STEEPNESS * (off - THRESHOLD * len(gram) ** 0.5))
    squared = (forward - backward).square().sum(dim=1).mean() + (backward - old).square().sum(dim=1).mean()
    total: Tensor = squared + gate * off
    return total if labels is None else total + supervised_contrast(forward, backward, labels)


def supervised_contrast(forward: Tensor, backward: Tensor, labels: Tensor) -> Tensor:
    """SupCon of B(n) against the F(o) of the batch: mean over i, and over j of i's class, of −log softmax_j(cos/τ)."""
    from torch.nn.functional import log_softmax, normalize

    scores = log_softmax(normalize(backward) @ normalize(forward).T / TEMPERATURE, dim=1)
    same = labels[:, None] == labels
    return -((scores * same).sum(dim=1) / same.sum(dim=1)).mean()


def _forward(maps: Maps, back: ArrayEncoder) -> ArrayEncoder:
    spec = back.spec
    space = OlderSpace(generation=spec.generation, dim=spec.dim, fingerprint=spec.fingerprint)
    return net_encoder(NAME, maps.forward, space)


def _train(task: Task, rate: float) -> Maps:
    import torch
    from torch import nn

    from nobackfill.models.vector_net import build_vector_net
    from nobackfill.training.small_nets import arrays_of, descend

    old, new = task.rows_of(task.x_file), task.rows_of(task.y_file)
    start = procrustes(moments(new, old), centred=True)
    o, n = torch.from_numpy(old), torch.from_numpy(new)
    labels = None
    if task.labels_file is not None:
        labels = torch.from_numpy(np.asarray(read_npy(task.labels_file)[task.trained_rows], np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.settings.seed)
        ahead = build_vector_net(f"vectors/linear+{task.settings.hidden}", old.shape[1], {"in_features": old.shape[1]})
        back = nn.Linear(new.shape[1], old.shape[1])
    with torch.no_grad():
        back.weight.copy_(torch.from_numpy(start.weight))
        back.bias.copy_(torch.from_numpy(start.bias))
        nn.init.eye_(ahead.get_parameter("linear.weight"))
        nn.init.zeros_(ahead.get_parameter("linear.bias"))

    def loss(rows: Tensor) -> Tensor:
        return pair_loss(ahead(o[rows]), back(n[rows]), o[rows], back.weight, None if labels is None else labels[rows])

    parameters = [*ahead.parameters(), *back.parameters()]
    title, seed = f"training {NAME} at {rate:g}", task.settings.seed
    epochs = budget.epochs_for(len(o), budget.MOST_EPOCHS)
    descend(parameters, loss, len(o), rate, seed, title, epochs, budget.BATCH)
    linear = LinearMap(back.weight.detach().double().numpy(), back.bias.detach().double().numpy(), "")
    weights = arrays_of({f"backbone.{name}": each for name, each in ahead.state_dict().items()})
    return Maps(linear, weights, epochs)
