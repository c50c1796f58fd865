"""Static text models: a vector for each token, and their mean. Read from a folder, or fresh from the words of texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from nobackfill.data.preprocessing import TextPreprocessing
from nobackfill.data.tokens import tokenizer_digest
from nobackfill.errors import ConfigError, RunError, one_line, require
from nobackfill.models.text_source import TextSource, check_vocabulary, output_layer

WORDS = 30_000  # tokens of a fresh model at most
LONGEST = 512  # tokens of a text, where the folder does not say
UNKNOWN = "[UNK]"


class StaticBackbone(nn.Module):
    """The mean of token vectors, and an output layer.

    Args:
        vocabulary: number of tokens.
        width: of a token's vector.
        out_features: size of the output.
        output: whether there is an output layer; without one `width` is the size of the output.
    """

    def __init__(self, vocabulary: int, width: int, out_features: int, *, output: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocabulary, width).normal_(std=0.1))
        self.project = output_layer(width, out_features, wanted=output)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [n, t], filled up with −1, to [n, out_features]; a text without tokens counts as zeros."""
        there = tokens >= 0
        ends = there.sum(1).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        means = embedding_bag(tokens[there], self.table, starts, mode="mean")
        features: Tensor = means if self.project is None else self.project(means)
        return features


def build_static(out_features: int, options: Mapping[str, object]) -> StaticBackbone:
    """An untrained table of these sizes; raises `RunError` if they are not those of one."""
    sizes = [options.get(key) for key in ("vocabulary", "width", "output")]
    if set(options) != {"vocabulary", "width", "output"} or not all(isinstance(size, int) for size in sizes):
        raise RunError(f"backbone 'static': expected the options vocabulary, width and output, found {dict(options)}")
    vocabulary, width, output = (int(str(size)) for size in sizes)
    if not (0 < vocabulary <= 10_000_000 and 0 < width <= 65536):
        raise RunError(f"backbone 'static': sizes out of range: {dict(options)}")
    return StaticBackbone(vocabulary, width, out_features, output=bool(output))


@dataclass(frozen=True)
class Layout:
    """Where a kind of static model keeps its files.

    Attributes:
        weights, tokenizer: patterns within its folder, each of one file.
        table: name of the tensor of token vectors.
        mean_of_known: leave out the tokenizer's token of unknown words, as model2vec does.
        max_tokens: of a text.
    """

    weights: str
    tokenizer: str
    table: str
    mean_of_known: bool
    max_tokens: int


LAYOUTS = (
    Layout("model.safetensors", "tokenizer.json", "embeddings", mean_of_known=True, max_tokens=LONGEST),  # model2vec
    Layout("model.safetensors", "tokenizer.json", "embedding.weight", mean_of_known=False, max_tokens=65536),
    Layout("*_StaticEmbedding/model.safetensors", "*_StaticEmbedding/tokenizer.json", "embedding.weight",
           mean_of_known=False, max_tokens=65536),
    Layout("weights/*.safetensors", "tokenizers/*_tokenizer_config.json", "embedding.weight",
           mean_of_known=False, max_tokens=65536),  # WordLlama's package
)  # fmt: skip


def read_static(folder: Path) -> TextSource:
    """The static model in a local folder: of model2vec, of sentence-transformers (`StaticEmbedding`), or WordLlama's.

    Raises:
        ConfigError: if there is none, or its tokenizer is not that of its table.
    """
    require("tokenizers", what=f"static:{folder}")
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    for layout in LAYOUTS:
        weights, tokenizers = sorted(folder.glob(layout.weights)), sorted(folder.glob(layout.tokenizer))
        if len(weights) != 1 or len(tokenizers) != 1:
            continue
        try:
            tensors = load_file(weights[0])
            if layout.table not in tensors:
                continue
            text = tokenizers[0].read_text(encoding="utf-8")
            tokenizer = Tokenizer.from_str(text)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{weights[0]}: damaged, not readable as safetensors: {one_line(error)}") from error
        except Exception as error:  # a tokenizer of a stranger's file may raise anything
            raise ConfigError(f"{tokenizers[0]}: not a tokenizer: {one_line(error)}") from error
        table = _folded(tensors[layout.table], tensors, weights[0])
        check_vocabulary(folder, tokenizer.get_vocab_size(), len(table))
        unknown = json.loads(text).get("model", {}).get("unk_token") if layout.mean_of_known else None
        return TextSource(
            "static",
            {"vocabulary": len(table), "width": table.shape[1]},
            TextPreprocessing(
                tokenizer=tokenizer_digest(text), max_tokens=layout.max_tokens, padding=0, masked=True, marks=False,
                left_out=tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None,
            ),
            text,
            {"table": table},
        )  # fmt: skip
    raise ConfigError(
        f"{folder}: no static model there: expected a folder of model2vec, of sentence-transformers' StaticEmbedding, "
        "or WordLlama's package"
    )


def fresh_static(texts: Iterable[str]) -> TextSource:
    """A model with nothing learnt: the most frequent words of these texts, and single characters for all others.

    Text is lowercased and loses its accents; a word that is not among the tokens falls apart into the longest ones
    that make it up. The same texts give the same tokenizer.
    """
    require("tokenizers", what="the backbone 'static'")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    tokens = [UNKNOWN, *letters, *(f"##{letter}" for letter in letters)]
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    tokens = list(dict.fromkeys([*tokens, *frequent]))[: max(WORDS, len(tokens))]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    text = tokenizer.to_str()
    settings = TextPreprocessing(
        tokenizer=tokenizer_digest(text), max_tokens=LONGEST, padding=0, masked=True, marks=False
    )
    return TextSource("static", {"vocabulary": len(vocabulary)}, settings, text, {})


def _folded(table: Tensor, tensors: Mapping[str, Tensor], path: Path) -> Tensor:
    """One row a token, float32, where model2vec keeps shared rows (`mapping`) or factors (`weights`) apart."""
    try:
        rows = table.float()
        if "mapping" in tensors:
            rows = rows[tensors["mapping"].long()]
        if "weights" in tensors:
            rows = rows * tensors["weights"].float()[:, None]
        if rows.ndim != 2 or not rows.isfinite().all():
            raise ValueError(f"found {list(rows.shape)}, or values that are not finite")
    except (IndexError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{path}: not a table of token vectors: {one_line(error)}") from error
    return rows.contiguous()
