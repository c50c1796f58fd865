"""CLIP's two towers (arXiv 2103.00020): captions and images in one space. Needs the extra `text` (transformers)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nobackfill.data.preprocessing import Preprocessing, TextPreprocessing
from nobackfill.data.tokens import tokenizer_digest
from nobackfill.errors import ConfigError, RunError, one_line, require
from nobackfill.models.transformer import from_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim")
_OTHER = ("hidden_act", "layer_norm_eps")
# What of a tower's configuration decides its vectors; the rest concerns training.
TOWERS: dict[str, tuple[str, ...]] = {
    "clip/text": (*_SIZES, *_OTHER, "vocab_size", "max_position_embeddings", "eos_token_id"),
    "clip/image": (*_SIZES, *_OTHER, "image_size", "patch_size"),
}


class Tower(nn.Module):
    """One tower with its projection: tokens int64 [n, t] or images [n, 3, s, s] to [n, projection_dim].

    Attributes:
        options: the sizes it is rebuilt from.
    """

    def __init__(self, name: str, model: PreTrainedModel) -> None:
        super().__init__()
        self.text: bool = name == "clip/text"
        self.model = model
        self.options: dict[str, int | float | str] = {key: getattr(model.config, key) for key in TOWERS[name]}

    def forward(self, samples: Tensor) -> Tensor:
        """Attention looks only backwards, and the value is read at the first end mark: padding needs no mask."""
        output = self.model(samples)
        features: Tensor = output.text_embeds if self.text else output.image_embeds
        return features


def build_tower(name: str, options: Mapping[str, int | float | str]) -> Tower:
    """An untrained tower of these sizes; raises `RunError` if they are not those of a tower."""
    if set(options) != set(TOWERS[name]):
        wrong = sorted(set(options) ^ set(TOWERS[name]))
        raise RunError(f"backbone {name!r}: missing or unknown options: {', '.join(wrong)}")
    require("transformers", what=f"backbone {name!r}")
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    try:
        if name == "clip/text":
            return Tower(name, CLIPTextModelWithProjection(CLIPTextConfig.from_dict(dict(options))))
        return Tower(name, CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(dict(options))))
    except Exception as error:  # sizes of a stranger's file may break it anywhere
        raise RunError(f"backbone {name!r} cannot be built: {one_line(error)}") from error


def read_tower(folder: Path, name: str) -> Tower:
    """A tower of the CLIP model in a folder, with its weights; raises `ConfigError` if there is none."""
    require("transformers", what="import-clip")
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    kind = CLIPTextModelWithProjection if name == "clip/text" else CLIPVisionModelWithProjection
    return Tower(name, from_folder(kind, folder, "CLIP model", "clip"))


def read_image_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """Shorter side, square, mean and deviation of `preprocessor_config.json`; CLIP's own where it is silent."""
    path = folder / "preprocessor_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        side = settings.get("size", image_size)
        side = side.get("shortest_edge", image_size) if isinstance(side, dict) else side
        return Preprocessing(
            image_size=image_size,
            resize=max(side, image_size),
            mean=settings.get("image_mean", CLIP_MEAN),
            std=settings.get("image_std", CLIP_STD),
            interpolation="bicubic",
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not an image preprocessor: {one_line(error)}") from error


def read_tokenizer(folder: Path, options: Mapping[str, int | float | str]) -> tuple[str, TextPreprocessing]:
    """The folder's tokenizer as JSON text, and what the run folder says of it."""
    from transformers import AutoTokenizer

    if not ((folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()):
        raise ConfigError(f"{folder}: no CLIP tokenizer there: expected tokenizer.json, or vocab.json and merges.txt")
    try:
        place = str(folder.resolve(strict=True))
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        text: str = tokenizer.backend_tokenizer.to_str()
        padding = int(tokenizer.eos_token_id)  # any token after the end mark will do: it is never looked at
    except Exception as error:  # a tokenizer fed with a stranger's files may raise anything
        raise ConfigError(f"{folder}: no CLIP tokenizer there: {one_line(error)}") from error
    if len(tokenizer) > int(options["vocab_size"]):
        raise ConfigError(
            f"{folder}: its tokenizer has {len(tokenizer)} tokens, but the model has only {options['vocab_size']}"
        )
    return text, TextPreprocessing(
        tokenizer=tokenizer_digest(text), max_tokens=int(options["max_position_embeddings"]), padding=padding
    )
