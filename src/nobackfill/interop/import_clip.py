"""A tower of a pre-trained CLIP model as an encoder of this package."""

from __future__ import annotations

from pathlib import Path

from nobackfill.config import Modality
from nobackfill.errors import ConfigError
from nobackfill.models.clip import read_image_preprocessing, read_tokenizer, read_tower
from nobackfill.models.encoder import Encoder
from nobackfill.models.finished import finished_encoder, finished_spec
from nobackfill.models.heads import UnitHead
from nobackfill.models.network import Network
from nobackfill.models.spec import OlderSpace
from nobackfill.models.text import TextEncoder


def import_tower(folder: Path, tower: Modality, prefixes: tuple[OlderSpace, ...] = ()) -> Encoder:
    """The text or image tower of the CLIP model in a local folder; its vectors have unit norm.

    Args:
        folder: transformers' layout: config.json, weights, tokenizer or preprocessor files.
        tower: which of the two.
        prefixes: the other tower, if it is imported already: both answer the same space.

    Raises:
        ConfigError: if the folder does not hold such a model, or `prefixes` is of another size.
    """
    backbone = read_tower(folder, f"clip/{tower}")
    dim = int(backbone.options["projection_dim"])
    if prefixes and prefixes[0].dim != dim:
        raise ConfigError(f"--other: an embedding of {prefixes[0].dim} values, but this tower has {dim}")
    network = Network(backbone, UnitHead(dim), f"clip/{tower}", backbone.options)
    if tower == "image":
        preprocessing = read_image_preprocessing(folder, int(backbone.options["image_size"]))
        return finished_encoder(network, "clip-image", preprocessing, prefixes)
    text, settings = read_tokenizer(folder, backbone.options)
    return TextEncoder(network, finished_spec(network, "clip-text", settings, prefixes), text)
