"""Tiny SentenceTransformer folders, made on the spot: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KNOWN = (
    "a b c card lost my where is the money transfer top up was charged twice new pin exchange rate when will it come "
    "cash machine swallowed refund not there yet app does open"
)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(KNOWN.split())]
TEXTS = ["where is my card", "the money transfer", "when will it come", "a new pin", "cash machine swallowed my card"]


def bert_model(*, size: int = 16, seed: int = 0, pooling: str = "mean", normalize: bool = True, **options: Any) -> Any:
    """A `SentenceTransformer` of a random BERT of one layer, on the CPU."""
    import importlib
    import tempfile

    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=size, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=size, max_position_embeddings=64,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
        BertModel(config).save_pretrained(folder)
        transformers: Any = importlib.import_module("transformers")  # it loads this name lazily
        transformers.BertTokenizerFast(str(Path(folder) / "vocab.txt")).save_pretrained(folder)
        modules = [Transformer(folder), Pooling(size, pooling)]
    modules += [Normalize()] if normalize else []
    return SentenceTransformer(modules=modules, device="cpu", **options)


def static_model(*, size: int = 8, seed: int = 0, **options: Any) -> Any:
    """A `SentenceTransformer` of token vectors and their mean, of any norm."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = torch.randn(len(VOCABULARY), size, generator=torch.Generator().manual_seed(seed))
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, table)], device="cpu", **options)


def save(model: Any, folder: Path) -> Path:
    """The folder of a model, in the standard layout."""
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
