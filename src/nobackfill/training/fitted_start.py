"""A start that faces a foreign old space: the output layer of a text model, fitted to the old vectors in closed form.

Fine-tuning moves a model little; where its vectors have nothing to do with the old ones, most steps would go into
finding the old space. The best linear way there is known before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nobackfill.data import TextSamples
from nobackfill.errors import ConfigError
from nobackfill.models import Network
from nobackfill.models.heads import BasisTransformHead, ConcatHead, Head, PlainHead

PENALTIES = tuple(10.0**power for power in range(-5, 2))
HELD_OUT = 5  # one text in so many judges the penalties
BATCH = 256


@dataclass(frozen=True)
class Moments:
    """Of pairs (x, y) of unit vectors, summed in double precision.

    Attributes:
        count: pairs.
        xx: Σ x xᵀ, float64 [w, w].
        yx: Σ y xᵀ, float64 [d_o, w].
    """

    count: int
    xx: Tensor
    yx: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Moments:
        """Of rows [n, w] and [n, d_o]."""
        return cls(len(x), x.T @ x, y.T @ x)

    def __add__(self, other: Moments) -> Moments:
        """Of both sets."""
        return Moments(self.count + other.count, self.xx + other.xx, self.yx + other.yx)


def fit_output(
    network: Network, texts: Sequence[tuple[TextSamples, Tensor]], device: torch.device
) -> dict[str, object]:
    """Set the output layer so that the compatible part starts as the ridge regression of the old vectors.

    With x the backbone's vector of a text before its output layer, of unit norm, and y the old vector: W minimises
    Σ‖W x − y‖² + λ·s·n·‖W‖², s the mean square of a value of x, λ the one of `PENALTIES` with the least error on every
    fifth text. There is no bias, so that W means the same whatever the norm of x. The values beyond the compatible part
    start as the largest principal directions of x, each value as large on average as one of the compatible part. BT²'s
    change of basis starts at random, and the layer before it undoes that.

    Args:
        network: of a text backbone with an output layer, on the CPU.
        texts: with their tokens, and their old vectors, floats [n, d_o]: all of training.
        device: where to compute.

    Returns:
        What `metrics.json` says of it: the number of texts, λ, and the mean ‖W x − y‖² of the texts that chose λ.

    Raises:
        ConfigError: if there is no output layer, or no compatible part.
    """
    layer, head = getattr(network.backbone, "project", None), network.head
    if not isinstance(layer, nn.Linear):
        raise ConfigError(
            "key 'init': a fresh 'static' model has no output layer to fit; expected sentence:FOLDER or static:FOLDER"
        )
    old_dim = texts[0][1].shape[1]
    fitting, judging = _moments(network.backbone, texts, device)
    errors = {
        penalty: squared_error(weight, judging)
        for penalty, weight in zip(PENALTIES, ridge(fitting, PENALTIES), strict=True)
    }
    penalty = min(errors, key=lambda one: errors[one])
    everything = fitting + judging
    (weight,) = ridge(everything, [penalty])
    rest = principal_rows(everything, weight, layer.out_features)
    with torch.no_grad():
        layer.weight.copy_(lifted(head, weight, rest, old_dim))
        layer.bias.zero_()
    return {"texts": everything.count, "penalty": penalty, "squared_error": round(errors[penalty], 6)}


def ridge(moments: Moments, penalties: Iterable[float]) -> list[Tensor]:
    """W of each penalty, float64 [d_o, w]: Σ y xᵀ (Σ x xᵀ + λ·tr(Σ x xᵀ)/w·I)⁻¹, by one decomposition."""
    values, vectors = torch.linalg.eigh(moments.xx)
    rotated, scale = moments.yx @ vectors, float(values.mean())
    return [(rotated / (values.clamp(min=0) + penalty * scale)) @ vectors.T for penalty in penalties]


def squared_error(weight: Tensor, moments: Moments) -> float:
    """Mean ‖W x − y‖² over pairs whose y have unit norm."""
    fitted = (weight @ moments.xx * weight).sum() - 2 * (weight * moments.yx).sum()
    return 1 + float(fitted) / moments.count


def principal_rows(moments: Moments, weight: Tensor, count: int) -> Tensor:
    """The largest principal directions of x, at most as many rows as x has values, float64 [≤ count, w].

    Each value is scaled so that a row's mean square is, on average over the rows, that of a row of W x.
    """
    values, vectors = torch.linalg.eigh(moments.xx)
    values, vectors = values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
    # An eigenvector's sign is arbitrary, and may differ between machines: its largest entry is made positive.
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    rows: Tensor = (vectors * largest.sign()).T
    square = float((weight @ moments.xx * weight).sum()) / len(weight)
    return rows * math.sqrt(square / float(values.mean()))


def lifted(head: Head, weight: Tensor, rest: Tensor, old_dim: int) -> Tensor:
    """The output layer [in_features, w] with which this head's compatible part is W x up to its norm.

    Args:
        head: of a method; of BT² with extra dimensions its layer for these is set too.
        weight: W, float64 [d_o, w].
        rest: rows for the other values, most important first.
        old_dim: d_o.

    Raises:
        ConfigError: for a head without a compatible part.
    """
    rows = torch.zeros(head.in_features, weight.shape[1], dtype=torch.float64)

    def fill(start: int, stop: int) -> None:
        some = rest[: stop - start]
        rows[start : start + len(some)] = some

    match head:
        case PlainHead() if head.old_dim:
            rows[:old_dim] = weight
            fill(old_dim, head.dim)
        case ConcatHead():
            rows[:old_dim] = weight
            fill(old_dim, head.in_features)
        case BasisTransformHead():
            # z = [o ; P·C·f] and b = B·z[:d_o], so that z[:d_o] has to be Bᵀ W x: the first k values from o.
            basis, k, d = head.basis, head.extra_dim, head.new_dim
            wanted = _matrix(basis.B).T @ weight
            own = torch.zeros(d, weight.shape[1], dtype=torch.float64)
            own[: old_dim - k] = wanted[k:]
            some = rest[: d + k - old_dim]
            own[old_dim - k : old_dim - k + len(some)] = some
            rows[:d] = _matrix(basis.P).T @ own
            fill(d, head.in_features)
            _fit_extra(head, rows, wanted)
        case _:
            raise ConfigError("key 'init': this method has no compatible part to fit; leave it out")
    return rows


def _matrix(layer: nn.Module) -> Tensor:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"expected a matrix, found {type(weight).__name__}")
    return weight.detach().double()


def _fit_extra(head: BasisTransformHead, rows: Tensor, wanted: Tensor) -> None:
    """Make o the first k values wanted: they and their negatives pass the ReLU as two features each."""
    if head.extra is None:
        return
    d, sides = head.new_dim, 2 if head.rectify else 1
    count = min(head.extra_dim, head.old_dim // sides)
    with torch.no_grad():
        head.extra.weight[: head.extra_dim].zero_()
        head.extra.bias[: head.extra_dim].zero_()
        for side, sign in enumerate((1.0, -1.0)[:sides]):
            place = d + side * count
            rows[place : place + count] = sign * wanted[:count]
            head.extra.weight[:count, place : place + count] = sign * torch.eye(count)


@torch.no_grad()
def _moments(
    backbone: nn.Module, texts: Sequence[tuple[TextSamples, Tensor]], device: torch.device
) -> tuple[Moments, Moments]:
    """Of the texts to fit on, and of those to judge by."""
    layer, training = backbone.project, backbone.training
    backbone.project = nn.Identity()  # its vectors before the output layer
    backbone.eval().to(device)
    sums: list[Moments | None] = [None, None]
    try:
        for samples, old in texts:
            if samples.tokens is None:
                raise ValueError("expected texts with tokens")
            held = np.arange(len(samples)) % HELD_OUT == HELD_OUT - 1
            for number, group in enumerate((np.flatnonzero(~held), np.flatnonzero(held))):
                order = group[np.argsort(samples.tokens.lengths[group], kind="stable")]  # little padding
                for start in range(0, len(order), BATCH):
                    index = order[start : start + BATCH]
                    tokens = torch.from_numpy(samples.tokens.batch(index)).to(device)
                    x = normalize(backbone(tokens).double().cpu())
                    more = Moments.of(x, normalize(old[torch.from_numpy(index)].double()))
                    before = sums[number]
                    sums[number] = more if before is None else before + more
    finally:
        backbone.project = layer
        backbone.to("cpu").train(training)
    fitting, judging = sums
    if fitting is None or judging is None:
        raise ConfigError(f"key 'init': expected at least {HELD_OUT} training texts to fit the output layer to")
    return fitting, judging
