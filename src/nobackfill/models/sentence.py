"""Transformers that embed sentences: read from a SentenceTransformer folder, rebuilt from their sizes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nobackfill.errors import RunError, one_line, require
from nobackfill.models.text_source import output_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ACTIVATIONS: dict[str, type[nn.Module]] = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
OPTIONS = {"config", "pooling", "dense", "width", "output"}
ROWS, FILLED = 8, 0.75  # a part of a batch has so many texts at least, and so much of it is no padding


class SentenceBackbone(nn.Module):
    """A transformer, pooling, dense layers, and an output layer.

    Args:
        options: `config`: the transformer's, as JSON; `pooling`: names joined by `+`; `dense`: JSON list of
            [inputs, outputs, bias, activation]; `width`: size of what they give; `output`: 1 with an output layer.
        out_features: size of the output.
    """

    def __init__(self, options: Mapping[str, int | float | str], out_features: int) -> None:
        super().__init__()
        self.model = empty_transformer(str(options["config"]))
        self.padding = int(getattr(self.model.config, "pad_token_id", None) or 0)
        self.pooling = str(options["pooling"]).split("+")
        if not set(self.pooling) <= set(POOLINGS):
            raise RunError(
                f"backbone 'sentence': pooling {options['pooling']!r}: expected some of {', '.join(POOLINGS)}"
            )
        layers: list[nn.Module] = []
        for inputs, outputs, bias, activation in json.loads(str(options["dense"])):
            layers += [nn.Linear(inputs, outputs, bias=bias), ACTIVATIONS[activation]()]
        self.dense = nn.Sequential(*layers)
        self.project = output_layer(int(options["width"]), out_features, wanted=bool(options["output"]))

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [n, t], filled up with −1, to [n, out_features].

        Texts of similar length go through the transformer together, so that little of the work is padding.
        """
        if len(tokens) <= ROWS or torch.compiler.is_compiling():
            features = self._pooled(tokens)
        else:
            lengths = (tokens >= 0).sum(1)
            order = lengths.argsort(descending=True, stable=True)
            parts, start, ordered = [], 0, lengths[order].tolist()
            for size in part_sizes(ordered):
                longest = max(1, ordered[start])
                parts.append(self._pooled(tokens[order[start : start + size], :longest]))
                start += size
            features = torch.cat(parts)[order.argsort()]
        features = self.dense(features)
        result: Tensor = features if self.project is None else self.project(features)
        return result

    def _pooled(self, tokens: Tensor) -> Tensor:
        mask = tokens >= 0
        ids = torch.where(mask, tokens, self.padding)
        hidden: Tensor = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return torch.cat([pooled(hidden.float(), mask, name) for name in self.pooling], dim=1)


def pooled(hidden: Tensor, mask: Tensor, name: str) -> Tensor:
    """One vector a text of those of its tokens; [n, t, d] and bool [n, t] (texts begin at 0) to [n, d]."""
    if name == "cls":
        return hidden[:, 0]
    if name == "max":
        return hidden.masked_fill(~mask[..., None], -torch.inf).amax(1)
    counts = mask.sum(1, keepdim=True).clamp(min=1)
    if name == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), counts[:, 0] - 1]
    weights = mask.to(hidden.dtype)
    if name == "weightedmean":
        weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device)
        return (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1)
    total = (hidden * weights[..., None]).sum(1)
    return total / (counts.sqrt() if name == "mean_sqrt_len_tokens" else counts)


def part_sizes(lengths: list[int]) -> list[int]:
    """How a batch of texts of falling lengths is cut into parts of little padding: their numbers of texts."""
    sizes = [0]
    longest = lengths[0]
    for length in lengths:
        if sizes[-1] >= ROWS and length < FILLED * longest:
            sizes.append(0)
            longest = length
        sizes[-1] += 1
    return sizes


def build_sentence(out_features: int, options: Mapping[str, int | float | str]) -> SentenceBackbone:
    """An untrained backbone of these options; raises `RunError` if they are not those of one."""
    if set(options) != OPTIONS:
        raise RunError(f"backbone 'sentence': missing or unknown options: {sorted(set(options) ^ OPTIONS)}")
    require("transformers", what="the backbone 'sentence'")
    try:
        return SentenceBackbone(options, out_features)
    except RunError:
        raise
    except (TypeError, ValueError, KeyError, RuntimeError, MemoryError, AttributeError) as error:
        raise RunError(f"backbone 'sentence' cannot be built: {one_line(error)}") from error


def empty_transformer(config: str) -> PreTrainedModel:
    """An untrained transformer of `transformers`, without the layer on top that pooling does not use."""
    transformers = importlib.import_module("transformers")  # parts of it have no types
    tree = json.loads(config)
    if "auto_map" in tree:
        raise RunError("backbone 'sentence': its config wants code of its own, which is not run")
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**tree), trust_remote_code=False)
    return without_pooler(model.float())


def without_pooler(model: PreTrainedModel) -> PreTrainedModel:
    """The model without BERT's own pooling layer, which would be trained without a gradient."""
    if getattr(model, "pooler", None) is not None:
        model.register_module("pooler", None)
    return model
