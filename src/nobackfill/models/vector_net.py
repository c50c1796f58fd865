"""The backbones of encoders whose samples are vectors of another model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nobackfill.errors import ConfigError
from nobackfill.models.array_encoder import FORM


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


def build_vector_net(name: str, out_features: int, options: Mapping[str, object]) -> VectorNet:
    """`vectors/linear`, `vectors/keep`, or one of them with a net of H hidden units, `vectors/keep+H`.

    Raises:
        ConfigError: for another name, or options that are not {"in_features": n}.
    """
    form = FORM.fullmatch(name)
    if form is None:
        raise ConfigError(f"model.backbone: {name!r}: expected vectors/linear or vectors/keep, or either with +HIDDEN")
    size = options.get("in_features")
    if set(options) != {"in_features"} or not isinstance(size, int) or not 0 < size <= 65536:
        raise ConfigError(f"backbone {name!r}: expected the option in_features, found {dict(options)}")
    return VectorNet(form[1], int(form[2] or 0), size, out_features)
