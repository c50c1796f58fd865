"""A SentenceTransformer folder read for training: files of this machine only, tensors and JSON, never code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nobackfill.data.preprocessing import TextPreprocessing
from nobackfill.data.tokens import tokenizer_digest
from nobackfill.errors import ConfigError, one_line, require
from nobackfill.models.sentence_files import (
    DenseConfig,
    PoolingConfig,
    Settings,
    TokenizerConfig,
    TransformerConfig,
    TransformerSettings,
    read_json,
    read_optional,
)
from nobackfill.models.sentence_identity import PACKAGE, modules_of
from nobackfill.models.text_source import SENTENCE, TextSource, check_vocabulary

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

FORGOTTEN = ("_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype", "use_cache")
LONGEST = 512  # tokens, where neither tokenizer nor transformer says


def read_sentence(folder: Path) -> TextSource:
    """The model in a SentenceTransformer folder: transformer, pooling, dense layers, normalisation; its prompts.

    A folder of one `StaticEmbedding` is read as `static`.

    Raises:
        RunError: if the folder does not say of which modules it consists.
        ConfigError: if there is no such model, it wants code of its own, has a part that is not known, or its
            tokenizer is not that of its weights.
    """
    require("transformers", what=f"sentence:{folder}")
    from nobackfill.models.static import read_static

    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds[0] == "StaticEmbedding" and kinds[1:] in ([], ["Normalize"]):
        source = read_static(folder)
        return replace(source, preprocessing=_with_prompts(source.preprocessing, folder))
    dense = kinds[2:-1] if kinds[-1] == "Normalize" else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or set(dense) > {"Dense"}:
        raise ConfigError(
            f"{folder}: has the modules {', '.join(kinds)}; expected Transformer, Pooling, any number of Dense, and "
            "Normalize or nothing"
        )
    transformer, tokenizer, most = _transformer(folder, modules[0][1])
    pooling, width = _pooling(modules[1][1] / "config.json", transformer.config.hidden_size)
    layers, weights = [], {f"model.{name}": value for name, value in transformer.state_dict().items()}
    for number, (_, place) in enumerate(modules[2 : 2 + len(dense)]):
        layer, tensors = _dense(place)
        layers.append(layer)
        width = layer[1]
        weights |= {f"dense.{2 * number}.{name}": value for name, value in tensors.items()}
    config = {key: value for key, value in transformer.config.to_dict().items() if key not in FORGOTTEN}
    options = {"config": json.dumps(config, sort_keys=True), "pooling": pooling, "dense": json.dumps(layers)}
    settings = TextPreprocessing(
        tokenizer=tokenizer_digest(tokenizer),
        max_tokens=most,
        padding=0,
        masked=True,
    )
    pooling_config = read_json(PoolingConfig, modules[1][1] / "config.json")
    settings = _with_prompts(settings, folder, pooled=pooling_config.include_prompt)
    return TextSource(SENTENCE, {**options, "width": width}, settings, tokenizer, weights)


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Class, without its package, and folder of each module."""
    modules = list(modules_of(folder))
    for kind, _ in modules:
        if not kind.startswith(PACKAGE):
            raise ConfigError(f"{folder}: module {kind!r} is code of its own, which is not run")
    return [(kind.rpartition(".")[2], place) for kind, place in modules]


def _transformer(folder: Path, place: Path) -> tuple[PreTrainedModel, str, int]:
    """The transformer with its weights, its tokenizer as JSON, and the most tokens it reads."""
    from transformers import AutoModel, AutoTokenizer

    from nobackfill.models.sentence import without_pooler
    from nobackfill.models.transformer import quiet

    config = read_json(TransformerConfig, place / "config.json")
    settings = read_optional(TransformerSettings, place / "sentence_bert_config.json")
    told = (config, read_optional(TokenizerConfig, place / "tokenizer_config.json"))
    if any("auto_map" in each.model_fields_set for each in told):
        raise ConfigError(f"{folder}: wants code of its own (auto_map), which is not run")
    if config.is_encoder_decoder:
        raise ConfigError(f"{folder}: {config.model_type} has an encoder and a decoder; expected an encoder")
    try:
        with quiet():
            model, report = AutoModel.from_pretrained(
                str(place), local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
            reader = AutoTokenizer.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
        backend = reader.backend_tokenizer
        if settings.do_lower_case:
            from tokenizers import normalizers

            own = [] if backend.normalizer is None else [backend.normalizer]
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
        tokenizer = str(backend.to_str())
    except Exception as error:  # readers fed with a stranger's files may raise anything
        raise ConfigError(f"{folder}: no transformer there that can be read: {one_line(error)}") from error
    absent = [str(name) for name in (*report["missing_keys"], *report["mismatched_keys"])]
    absent = sorted(name for name in absent if not name.startswith("pooler."))
    if absent:
        raise ConfigError(f"{folder}: {len(absent)} tensors missing or of the wrong shape, first {absent[0]}")
    check_vocabulary(folder, backend.get_vocab_size(with_added_tokens=True), len(model.get_input_embeddings().weight))
    limits = (reader.model_max_length, getattr(model.config, "max_position_embeddings", LONGEST))
    most = settings.max_seq_length or min(limit for limit in (*limits, 65536) if limit and limit > 0)
    return without_pooler(model.float().eval()), tokenizer, int(most)


def _pooling(path: Path, hidden: int) -> tuple[str, int]:
    """Names of the poolings, joined by `+`, and the size of what they give."""
    from nobackfill.models.sentence import POOLINGS

    names = read_json(PoolingConfig, path).names
    if not names or not set(names) <= set(POOLINGS):
        raise ConfigError(f"{path}: pooling {names}: expected some of {', '.join(POOLINGS)}")
    return "+".join(names), hidden * len(names)


def _dense(place: Path) -> tuple[tuple[int, int, bool, str], dict[str, Tensor]]:
    """Sizes, bias and activation of a dense layer, and its tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from nobackfill.models.sentence import ACTIVATIONS

    path = place / "config.json"
    layer = read_json(DenseConfig, path)
    activation = layer.activation_function.rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ConfigError(f"{path}: activation {activation!r}: expected {', '.join(ACTIVATIONS)}")
    try:
        tensors = load_file(place / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{place}: not a dense layer: {one_line(error)}") from error
    return (layer.in_features, layer.out_features, layer.bias, activation), {
        name.removeprefix("linear."): value.float() for name, value in tensors.items()
    }


def _with_prompts(settings: TextPreprocessing, folder: Path, *, pooled: bool = True) -> TextPreprocessing:
    """These settings with the folder's prompts; raises `ConfigError` if it has some that are not pooled."""
    told = read_optional(Settings, folder / "config_sentence_transformers.json")
    prompts = told.prompts or {}
    if any(prompts.values()) and not pooled:
        raise ConfigError(f"{folder}: leaves its prompt out of pooling (include_prompt: false), which is not supported")
    named = [prompts[name] for name in ("document", "passage", "corpus") if name in prompts]
    default, query = prompts.get(told.default_prompt_name or "", ""), prompts.get("query", "")
    document = named[0] if named else ""
    if not (default or query or document):
        return settings
    # As in sentence-transformers, the default prompt does not go before what is known to be a query or a document.
    own = {"prompt": default, "query_prompt": query, "document_prompt": document}
    return settings.model_copy(update=own)
