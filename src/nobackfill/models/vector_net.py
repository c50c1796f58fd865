"""The backbones of encoders whose samples are vectors of another model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nobackfill.errors import ConfigError
from nobackfill.models.array_encoder import FORM
from nobackfill.models.array_forms import PARALLEL

WIDEST = 8192  # hidden units of a net whose second layer is as wide as its first


class VectorNet(nn.Module):
    """A linear layer (`linear`) or the vectors as they are (`keep`), and a small net of one hidden layer.

    The net's last layer starts at zero. With `linear` it is added to the linear layer's output: a residual; with `keep`
    its output follows the vectors.
    """

    def __init__(self, form: str, hidden: int, in_features: int, out_features: int) -> None:
        super().__init__()
        beside = out_features - in_features
        if form == "keep" and (beside < 0 or bool(beside) != bool(hidden)):
            raise ConfigError(f"model.backbone: it keeps all {in_features} values, but {out_features} are required")
        self.linear = nn.Linear(in_features, out_features) if form == "linear" else None
        self.net = None
        if hidden:
            last = nn.Linear(hidden, out_features if form == "linear" else beside)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.net = nn.Sequential(nn.Linear(in_features, hidden), nn.GELU(), last)

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, in_features] to [n, out_features]."""
        if self.linear is None:
            return vectors if self.net is None else torch.cat([vectors, self.net(vectors)], dim=1)
        mapped: Tensor = self.linear(vectors)
        return mapped if self.net is None else mapped + self.net(vectors)


class ReluNet(nn.Module):
    """Two hidden layers with ReLU. With `first`, a row is two vectors side by side, each brought to unit norm."""

    def __init__(self, hidden: int, in_features: int, out_features: int, first: int | None) -> None:
        super().__init__()
        self.first = first
        self.net = nn.Sequential(
            nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, out_features),
        )  # fmt: skip

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, in_features] to [n, out_features]."""
        if self.first is not None:
            vectors = torch.cat([normalize(vectors[:, : self.first]), normalize(vectors[:, self.first :])], dim=1)
        mapped: Tensor = self.net(vectors)
        return mapped


class Slerp(nn.Module):
    """An old and a new vector side by side: on the arc from the old to the rotated new one. See `array_forms.slerp`."""

    def __init__(self, in_features: int, first: int, alpha: float) -> None:
        super().__init__()
        self.first, self.alpha = first, alpha
        self.rotation = nn.Linear(in_features - first, first, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, in_features] to [n, first]."""
        start = normalize(vectors[:, : self.first])
        end = normalize(self.rotation(normalize(vectors[:, self.first :])))
        angle = (start * end).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
        straight = angle.sin() < PARALLEL
        sine = angle.sin().where(~straight, torch.ones_like(angle))
        from_start = torch.where(straight, 1 - self.alpha, ((1 - self.alpha) * angle).sin() / sine)
        from_end = torch.where(straight, self.alpha, (self.alpha * angle).sin() / sine)
        return from_start * start + from_end * end


def build_vector_net(name: str, out_features: int, options: Mapping[str, object]) -> nn.Module:
    """`vectors/linear`, `vectors/keep`, or one of them with a net of H hidden units, `vectors/keep+H`.

    Or what `fit` makes: `vectors/relu+H`, and `vectors/slerp` (see `ReluNet`, `Slerp`).

    Raises:
        ConfigError: for another name, or options that are not {"in_features": n}.
    """
    form = FORM.fullmatch(name)
    if form is None:
        raise ConfigError(f"model.backbone: {name!r}: expected vectors/linear or vectors/keep, or either with +HIDDEN")
    size = options.get("in_features")
    hidden = int(form[2] or 0)
    if form[1] in ("relu", "slerp"):
        return _net_of_parts(name, form[1], hidden, out_features, options)
    if set(options) != {"in_features"} or not isinstance(size, int) or not 0 < size <= 65536:
        raise ConfigError(f"backbone {name!r}: expected the option in_features, found {dict(options)}")
    return VectorNet(form[1], hidden, size, out_features)


def _net_of_parts(name: str, form: str, hidden: int, out_features: int, options: Mapping[str, object]) -> nn.Module:
    size, first, alpha = options.get("in_features"), options.get("first"), options.get("alpha")
    if isinstance(size, int) and 0 < size <= 65536 and 0 < (first if isinstance(first, int) else 1) < max(2, size):
        if form == "relu" and 0 < hidden <= WIDEST and alpha is None and (first is None or isinstance(first, int)):
            return ReluNet(hidden, size, out_features, first)
        if form == "slerp" and not hidden and isinstance(alpha, int | float) and first == out_features:
            return Slerp(size, out_features, float(alpha))
    raise ConfigError(f"backbone {name!r}: its sizes do not fit its options {dict(options)}")
