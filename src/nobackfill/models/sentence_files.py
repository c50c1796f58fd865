"""The JSON files of a SentenceTransformer folder as far as training reads them; keys that it does not read are free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from nobackfill.config import explain
from nobackfill.errors import ConfigError, one_line
from nobackfill.files import read_text


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class TransformerConfig(_File):
    """`config.json` of a transformer, as far as it decides whether to read more."""

    auto_map: object = None
    is_encoder_decoder: bool = False
    model_type: str | None = None


class TokenizerConfig(_File):
    """`tokenizer_config.json`, as far as it decides whether to read more."""

    auto_map: object = None


class TransformerSettings(_File):
    """`sentence_bert_config.json`."""

    do_lower_case: bool | None = None
    max_seq_length: int | None = None


class PoolingConfig(_File):
    """`config.json` of a pooling, with the names of the older form, a key for each, or those of the newer one."""

    pooling_mode: str | list[str] | None = None
    cls: bool = Field(False, alias="pooling_mode_cls_token")
    max: bool = Field(False, alias="pooling_mode_max_tokens")
    mean: bool = Field(False, alias="pooling_mode_mean_tokens")
    mean_sqrt_len_tokens: bool = Field(False, alias="pooling_mode_mean_sqrt_len_tokens")
    weightedmean: bool = Field(False, alias="pooling_mode_weightedmean_tokens")
    lasttoken: bool = Field(False, alias="pooling_mode_lasttoken")
    include_prompt: bool = True

    @property
    def names(self) -> list[str]:
        """Of the poolings, in the order in which their vectors stand side by side."""
        if self.pooling_mode is None:
            older = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
            return [name for name in older if getattr(self, name)]
        return [self.pooling_mode] if isinstance(self.pooling_mode, str) else self.pooling_mode


class DenseConfig(_File):
    """`config.json` of a dense layer; its activation is the name of a class."""

    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "Tanh"


class Settings(_File):
    """`config_sentence_transformers.json`."""

    prompts: dict[str, str] | None = None
    default_prompt_name: str | None = None


Read = TypeVar("Read", bound=BaseModel)


def read_json(kind: type[Read], path: Path) -> Read:
    """A file of this kind; raises `ConfigError` for one that is damaged or of another."""
    try:
        tree = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {one_line(error)}") from error
    try:
        return kind.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, kind)}") from error


def read_optional(kind: type[Read], path: Path) -> Read:
    """The same; a file that is not there says nothing."""
    return read_json(kind, path) if path.is_file() else kind()
