"""The classifier W on top of an embedding: plain inner products, or scaled cosines."""

from __future__ import annotations

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


def make_classifier(dim: int, classes: int, *, bias: bool, scale: float | None) -> nn.Linear:
    """W for unit vectors: linear, or with a `scale` the cosine classifier; raises `ConfigError` for both at once."""
    if scale is None:
        return nn.Linear(dim, classes, bias=bias)
    if bias:
        raise ConfigError("key 'model.classifier_scale': a cosine classifier has no bias; set classifier_bias to false")
    return CosineClassifier(dim, classes, scale)


def options_of(classifier: nn.Linear) -> dict[str, bool | int | float]:
    """The options that `make_classifier` made this one of, as heads keep them; the scale only where there is one."""
    options: dict[str, bool | int | float] = {"classifier_bias": classifier.bias is not None}
    if isinstance(classifier, CosineClassifier):
        options["classifier_scale"] = classifier.scale
    return options
