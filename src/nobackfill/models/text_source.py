"""A text model to start from: its tokenizer and its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from nobackfill.data.preprocessing import TextPreprocessing
from nobackfill.errors import ConfigError
from nobackfill.models.spec import Architecture, fingerprint

SENTENCE, STATIC = "sentence", "static"
SPARE = 1024  # rows of a table beyond its tokenizer's tokens, to a round number


@dataclass(frozen=True)
class TextSource:
    """A tokenizer, and the backbone that reads its tokens.

    Attributes:
        backbone: name of its kind, as run folders keep it.
        options: what it is built from, without its output layer.
        preprocessing: settings of the tokenizer.
        tokenizer: its JSON.
        weights: tensors of the backbone by name, without its output layer; none of a fresh model.
    """

    backbone: str
    options: Mapping[str, int | float | str]
    preprocessing: TextPreprocessing
    tokenizer: str
    weights: Mapping[str, Tensor] = field(repr=False)

    @property
    def dim(self) -> int | None:
        """Size of its own vectors; None of a fresh model, which has the size that is asked for."""
        width = self.options.get("width")
        return None if width is None else int(width)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of architecture, settings and weights."""
        named = Architecture(backbone=self.backbone, backbone_options=dict(self.options), head="")
        return fingerprint(named, self.preprocessing, self.weights)

    def options_for(self, out_features: int, *, output: bool = True) -> dict[str, int | float | str]:
        """Options of a backbone with so many outputs; `output`: with an output layer of its own."""
        if self.dim is None:
            return {**self.options, "width": out_features, "output": 0}
        return {**self.options, "output": int(output)}

    def fill(self, backbone: nn.Module) -> None:
        """Put the weights into a backbone of these options; its output layer stays as it is."""
        if self.weights:
            found = backbone.load_state_dict(dict(self.weights), strict=False)
            missing = [name for name in found.missing_keys if not name.startswith("project.")]
            if missing or found.unexpected_keys:
                raise ConfigError(
                    f"backbone {self.backbone!r}: weights do not fit: {[*missing, *found.unexpected_keys]}"
                )


def output_layer(width: int, out_features: int, *, wanted: bool) -> nn.Linear | None:
    """A linear layer that starts as close to the identity as its shape lets it, so that nothing learnt is lost.

    Raises:
        ConfigError: without a layer, where the sizes differ.
    """
    if not wanted:
        if width != out_features:
            raise ConfigError(f"model.embedding_dim: {out_features}, but the backbone has {width} values and no layer")
        return None
    layer = nn.Linear(width, out_features)
    with torch.no_grad():
        layer.bias.zero_()
        if out_features < width:
            nn.init.orthogonal_(layer.weight)
        else:
            layer.weight[:width].copy_(torch.eye(width))
    return layer


def check_vocabulary(folder: Path, tokens: int, rows: int) -> None:
    """Raise `ConfigError` if a tokenizer of so many tokens cannot belong to a table of so many rows."""
    if not rows - SPARE <= tokens <= rows:
        raise ConfigError(
            f"{folder}: its tokenizer has {tokens} tokens, but its weights have rows for {rows}; "
            "expected the tokenizer that the model was trained with"
        )
