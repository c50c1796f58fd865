"""Backbones of text runs as standard modules: a transformer with its pooling, or a table of token vectors."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nobackfill.data.preprocessing import TextPreprocessing
from nobackfill.errors import RunError, require
from nobackfill.interop.standard_modules import Modules, dense
from nobackfill.models.encoder import Encoder
from nobackfill.models.sentence import SentenceBackbone
from nobackfill.models.static import StaticBackbone
from nobackfill.models.text import TextEncoder

require("sentence_transformers", what="a SentenceTransformer folder")
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer  # noqa: E402

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def backbone_modules(encoder: Encoder) -> Modules:
    """The backbone of a text run, from texts to the features that its head takes.

    Raises:
        RunError: for a backbone that no standard modules compute.
    """
    backbone, settings = encoder.network.backbone, encoder.spec.preprocessing
    if (
        not isinstance(backbone, SentenceBackbone | StaticBackbone)
        or not isinstance(settings, TextPreprocessing)
        or not isinstance(encoder, TextEncoder)
    ):
        kind = encoder.spec.architecture.backbone
        raise RunError(f"no standard modules compute its backbone {kind!r}; use nobackfill.interop.SentenceModule")
    last = [] if backbone.project is None else [backbone.project]
    if isinstance(backbone, StaticBackbone):
        return static_modules(
            backbone.table,
            encoder.tokenizer,
            max_tokens=settings.max_tokens,
            left_out=settings.left_out,
            layers=last,
        )
    return transformer_modules(
        backbone.model,
        encoder.tokenizer,
        max_tokens=settings.max_tokens,
        padding=backbone.padding,
        pooling=backbone.pooling,
        layers=[*backbone.dense, *last],
    )


def transformer_modules(
    transformer: PreTrainedModel,
    tokenizer: str,
    *,
    max_tokens: int,
    padding: int,
    pooling: Sequence[str],
    layers: Iterable[nn.Module],
) -> Modules:
    """A transformer, its pooling and linear layers after it.

    Args:
        transformer: model of `transformers`, also without the pooling layer of its own that BERT has.
        tokenizer: its JSON, as `tokenizers` reads it.
        max_tokens: longer texts are cut.
        padding: number of the token that fills a batch up.
        pooling: names as `Pooling` knows them; several give their vectors side by side.
        layers: `nn.Linear`, each with an activation after it or none.

    Raises:
        RunError: for a layer that `Dense` cannot be.
    """
    from tokenizers import Tokenizer

    transformers = importlib.import_module("transformers")  # parts of it have no types
    with torch.random.fork_rng(devices=[]):
        whole = transformers.AutoModel.from_config(transformer.config)
    found = whole.load_state_dict(transformer.state_dict(), strict=False)
    state = whole.state_dict()
    for name in found.missing_keys:  # a pooling layer that nothing looks at; the same in every export
        state[name].zero_()
    tokens = Tokenizer.from_str(tokenizer)
    reader = transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token=tokens.id_to_token(padding))
    reader.model_max_length = max_tokens
    with tempfile.TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        reader.save_pretrained(folder)
        first = Transformer(folder, max_seq_length=max_tokens)
    return [first, Pooling(first.get_embedding_dimension(), tuple(pooling)), *dense_modules(layers)]


def static_modules(
    table: Tensor, tokenizer: str, *, max_tokens: int, left_out: int | None, layers: Iterable[nn.Module]
) -> Modules:
    """Token vectors, their mean, and linear layers after it.

    A token that is left out of the mean has a row of zeros instead: the mean keeps its direction, which is all that a
    head without a bias before it looks at. Whoever writes the folder compares its vectors.

    Args:
        table: floats [tokens, d].
        tokenizer: its JSON.
        max_tokens: longer texts are cut.
        left_out: number of a token that does not count.
        layers: as `transformer_modules` takes them.
    """
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_str(tokenizer)
    tokens.enable_truncation(max_tokens)
    rows = table.detach().float().clone()
    if left_out is not None:
        rows[left_out] = 0
    return [StaticEmbedding(tokens, rows), *dense_modules(layers)]


def dense_modules(layers: Iterable[nn.Module]) -> Modules:
    """`nn.Linear` layers, each with the activation after it, as `Dense`; raises `RunError` for another module."""
    modules: Modules = []
    waiting: nn.Linear | None = None
    for layer in (*layers, None):
        activation = None if layer is None or isinstance(layer, nn.Linear) else layer
        if waiting is None and activation is not None:
            raise RunError(f"an activation {type(activation).__name__} without a linear layer before it")
        if waiting is not None:
            modules.append(dense(waiting.weight, waiting.bias, activation))
            waiting = None
        if isinstance(layer, nn.Linear):
            waiting = layer
    return modules
