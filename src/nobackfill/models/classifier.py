"""The classifier W on top of an embedding: plain inner products, or scaled cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from nobackfill.errors import ConfigError


class CosineClassifier(nn.Linear):
    """Logits scale·cos(x, W_c), for unit x [n, dim]; no bias.

    Whatever the length of its rows, W cannot make the logits larger than `scale`: a small scale keeps the loss of an
    image above zero until its whole class has come together.
    """

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        super().__init__(dim, classes, bias=False)
        self.scale = scale

    def forward(self, vectors: Tensor) -> Tensor:
        """Unit vectors [n, dim] to logits [n, classes]."""
        return self.scale * linear(vectors, normalize(self.weight))


class SimplexClassifier(nn.Linear):
    """Logits scale·<x, s_c> against the d + 1 corners of a regular simplex in d dimensions; it never learns.

    The corners are unit vectors with inner products −1/d: the same for every model of this size, whatever its classes.
    """

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        if classes > dim + 1:
            raise ConfigError(
                f"key 'model.embedding_dim': {dim} values have {dim + 1} simplex corners, too few for {classes} classes"
            )
        super().__init__(dim, dim + 1, bias=False)
        corners = math.sqrt(1 + 1 / dim) * torch.eye(dim) - dim**-1.5 * (math.sqrt(dim + 1) + 1)
        self.weight = nn.Parameter(torch.cat([corners, torch.full((1, dim), dim**-0.5)]), requires_grad=False)
        self.scale, self.classes = scale, classes

    def forward(self, vectors: Tensor) -> Tensor:
        """Unit vectors [n, dim] to logits [n, dim + 1]; those beyond the training classes are kept for later ones."""
        return self.scale * linear(vectors, self.weight)


def make_classifier(dim: int, classes: int, *, bias: bool, scale: float | None, simplex: bool = False) -> nn.Linear:
    """W for unit vectors: linear; with a `scale` the cosine classifier, or the simplex.

    Raises:
        ConfigError: for a bias beside a scale; for more classes than the simplex has corners.
    """
    if scale is None:
        return nn.Linear(dim, classes, bias=bias)
    if bias:
        raise ConfigError("key 'model.classifier_scale': a cosine classifier has no bias; set classifier_bias to false")
    return (SimplexClassifier if simplex else CosineClassifier)(dim, classes, scale)


def options_of(classifier: nn.Linear) -> dict[str, bool | int | float]:
    """The options that `make_classifier` made this one of, as heads keep them; the scale only where there is one."""
    options: dict[str, bool | int | float] = {"classifier_bias": classifier.bias is not None}
    if isinstance(classifier, SimplexClassifier):
        options["classifier_simplex"] = True
    if isinstance(classifier, CosineClassifier | SimplexClassifier):
        options["classifier_scale"] = classifier.scale
    return options
