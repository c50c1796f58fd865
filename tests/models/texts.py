"""Tiny text models made on the spot: a BERT of a few thousand random weights, a table of token vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

WORDS = [
    "the", "a", "card", "money", "my", "is", "not", "lost", "where", "when", "top", "up", "transfer", "fee", "why",
    "pending", "bank", "account", "zzz", "how",
]  # fmt: skip
TEXTS = [
    "where is my card", "the card is lost", "why is the transfer pending", "a fee", "top up my account", "money",
    "my bank account is not the card", "when is the transfer not pending and why is a fee", "how", "card zzz lost",
]  # fmt: skip


def write_tokenizer(path: Path, known: Sequence[str]) -> dict[str, int]:
    """A WordPiece tokenizer of whole words with BERT's marks; returns its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *known]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(path))
    return vocabulary


def write_sentence(
    place: Path,
    pooling: Sequence[str] = ("mean",),
    dense: int | None = None,
    prompts: Mapping[str, str] | None = None,
    dim: int = 8,
    seed: int = 0,
) -> Path:
    """A SentenceTransformer folder, as version 2 of that package wrote it; `dense`: outputs of a dense layer."""
    from transformers import BertConfig, BertModel

    place.mkdir(parents=True)
    write_tokenizer(place / "tokenizer.json", WORDS)
    names = {"tokenizer_class": "BertTokenizerFast", "model_max_length": 64}
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (place / "tokenizer_config.json").write_text(json.dumps({**names, **marks}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=40, hidden_size=dim, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=64, initializer_range=0.5, pad_token_id=0,
        )  # fmt: skip
        BertModel(config).save_pretrained(place)
        size = dim * len(pooling)
        modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
        (place / "1_Pooling").mkdir()
        modes = {"pooling_mode": pooling[0] if len(pooling) == 1 else list(pooling)}
        (place / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": dim, **modes}))
        if dense:
            (place / "2_Dense").mkdir()
            settings = {"in_features": size, "out_features": dense, "bias": True}
            kind = "torch.nn.modules.activation.Tanh"
            (place / "2_Dense" / "config.json").write_text(json.dumps({**settings, "activation_function": kind}))
            layer = {"linear.weight": torch.randn(dense, size), "linear.bias": torch.randn(dense)}
            save_file(layer, place / "2_Dense" / "model.safetensors")
            modules.append(("Dense", "2_Dense"))
    modules.append(("Normalize", f"{len(modules)}_Normalize"))
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(modules)
    ]
    (place / "modules.json").write_text(json.dumps(listed))
    (place / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    if prompts:
        named = {"prompts": dict(prompts), "default_prompt_name": "all" if "all" in prompts else None}
        (place / "config_sentence_transformers.json").write_text(json.dumps(named))
    return place


def write_static(place: Path, *, mapping: bool = False, dim: int = 6, seed: int = 1) -> Path:
    """A folder as model2vec writes it; `mapping`: two tokens share a row, and each has a weight."""
    place.mkdir(parents=True, exist_ok=True)
    size = len(write_tokenizer(place / "tokenizer.json", WORDS[:-2]))  # not zzz, not how
    random = torch.Generator().manual_seed(seed)
    tensors = {"embeddings": torch.randn(size - mapping, dim, generator=random)}
    if mapping:
        tensors["mapping"] = torch.arange(size).clamp(max=size - 2)
        tensors["weights"] = torch.rand(size, generator=random)
    save_file(tensors, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    return place
