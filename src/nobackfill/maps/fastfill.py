"""`fastfill` (Jaeckle et al., ICLR 2023): FCT, the new model's classes, and how sure the net is of every item.

What it is least sure of should be re-embedded first: `uncertainty` gives the order of a backfill.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.arrays import Floats
from nobackfill.errors import RunError, one_line
from nobackfill.files import read_npy
from nobackfill.maps import budget
from nobackfill.maps.fct import relu_encoder
from nobackfill.maps.pairs import Integers
from nobackfill.maps.task import Candidate, Task, finished, kept
from nobackfill.models import ArrayEncoder
from nobackfill.models.runfolder import load_arrays, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

UNCERTAINTY = "uncertainty.safetensors"
SHARPNESS = 16.0  # of the class term, as `prototype_scale` elsewhere
LEAST, MOST = -8.0, 4.0  # of the logarithm of the expected squared error


def fit_fastfill(task: Task) -> Iterator[Candidate]:
    """At the rate that searches better on the validation rows."""
    before = finished(task, "fastfill")
    if before is not None and (before.folder / UNCERTAINTY).is_file():
        yield before
        return
    tried: list[tuple[float, str, ArrayEncoder, dict[str, Floats]]] = []
    for rate in budget.RATES:
        encoder, last, epochs = _train(task, rate)
        words = "" if task.labels_file else "; no labels: without the class term"
        tried.append((task.score(encoder), f"{epochs} epochs at {rate:g}{words}", encoder, last))
    score, choice, encoder, last = max(tried, key=lambda one: one[0])
    candidate = kept(task, "fastfill", encoder, choice, score)
    write_tensors(candidate.folder / UNCERTAINTY, last)
    yield candidate


def uncertainty(run: Path, old: Floats) -> Floats:
    """The squared error that a `fastfill` run expects of its mapped vectors: higher is less sure.

    Args:
        run: folder of the fit (`…/methods/fastfill-to-new`).
        old: old vectors, floats [n, d_o].

    Returns:
        float32 [n].

    Raises:
        RunError: for another method's run, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = run / UNCERTAINTY
    if not path.is_file():
        raise RunError(
            f"{run}: holds no {UNCERTAINTY}; expected the folder of a fastfill fit, …/methods/fastfill-to-new"
        )
    hidden = load_arrays(run).hidden(old)
    try:
        last = load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path}: damaged: {one_line(error, 120)}") from None
    shapes = {name: list(array.shape) for name, array in last.items()}
    if shapes != {"weight": [1, hidden.shape[1]], "bias": [1]}:
        raise RunError(f"{path}: damaged: arrays {shapes} do not fit the run")
    logarithm = hidden @ last["weight"].T + last["bias"]
    values: Floats = np.exp(np.clip(logarithm[:, 0], LEAST, MOST)).astype(np.float32)
    return values


def fastfill_loss(
    mapped: Tensor, logarithm: Tensor, wanted: Tensor, classes: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """‖g − φ_new‖²/s + log s, and where there are labels CE(16·normalize(g)·Cᵀ, y), means over rows.

    The first part is, up to a factor and a constant, the negative log-likelihood of a Gaussian of one variance s/d in
    all d directions.

    Args:
        mapped: g(φ_old) [b, d].
        logarithm: log s [b].
        wanted: φ_new [b, d].
        classes: C [c, d], mean new vectors of the classes, standing for the new model's classifier; y int64 [b].
    """
    from torch.nn.functional import cross_entropy, normalize

    logarithm = logarithm.clamp(LEAST, MOST)
    likelihood = ((mapped - wanted).square().sum(dim=1) * (-logarithm).exp() + logarithm).mean()
    if classes is None:
        return likelihood
    centres, labels = classes
    return likelihood + cross_entropy(SHARPNESS * normalize(mapped) @ centres.T, labels)


def class_means(new: Floats, labels: Integers) -> Floats:
    """Mean vector of each class at unit norm, float32 [classes, d]; labels 0 … classes − 1, each there."""
    sums = np.zeros((int(labels.max()) + 1, new.shape[1]))
    np.add.at(sums, labels, new)
    means: Floats = (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return means


def _train(task: Task, rate: float) -> tuple[ArrayEncoder, dict[str, Floats], int]:
    import torch
    from torch import nn

    from nobackfill.training.small_nets import arrays_of, descend, folded, relu_net

    old, new = task.rows_of(task.x_file), task.rows_of(task.y_file)
    x, y = torch.from_numpy(old), torch.from_numpy(new)
    targets = None
    if task.labels_file is not None:
        _, labels = np.unique(read_npy(task.labels_file)[task.trained_rows], return_inverse=True)
        targets = torch.from_numpy(class_means(new, labels)), torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.settings.seed)
        net = relu_net(old.shape[1], task.settings.hidden, new.shape[1])
        unsure = nn.Linear(task.settings.hidden, 1)
    nn.init.zeros_(unsure.weight)
    nn.init.zeros_(unsure.bias)

    def loss(rows: Tensor) -> Tensor:
        hidden = net[:-1](x[rows])
        classes = None if targets is None else (targets[0], targets[1][rows])
        return fastfill_loss(net[-1](hidden), unsure(hidden)[:, 0], y[rows], classes)

    parameters = [*net.parameters(), *unsure.parameters()]
    title, seed = f"training fastfill at {rate:g}", task.settings.seed
    epochs = budget.epochs_for(len(x), budget.MOST_FROM_NOTHING)
    descend(parameters, loss, len(x), rate, seed, title, epochs, budget.BATCH)
    last = arrays_of({"weight": unsure.weight, "bias": unsure.bias})
    return relu_encoder("fastfill", folded(net), task.prefix), last, epochs
