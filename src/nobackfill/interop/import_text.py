"""A text model of another package as an encoder of this one, as it is: a first generation to be compatible with."""

from __future__ import annotations

from pathlib import Path

from nobackfill.errors import ConfigError
from nobackfill.models.backbones import build_backbone
from nobackfill.models.encoder import Encoder
from nobackfill.models.finished import finished_encoder
from nobackfill.models.heads import UnitHead
from nobackfill.models.network import Network
from nobackfill.models.sentence_encoder import sentence_spec
from nobackfill.models.text_backbones import open_source
from nobackfill.models.text_source import SENTENCE


def import_text(model: str) -> Encoder:
    """The model of `sentence:FOLDER` or `static:FOLDER`; its vectors get unit norm.

    What comes from `sentence:FOLDER` keeps the generation, fingerprint and older spaces that the folder itself has.

    Raises:
        ConfigError: for another name, or a folder that does not hold such a model.
        RunError: if the folder's lineage was written for another model.
    """
    source = open_source(model, lambda: ()) if ":" in model else None
    if source is None or source.dim is None:
        raise ConfigError(f"{model!r}: expected sentence:FOLDER or static:FOLDER")
    options = source.options_for(source.dim, output=False)
    backbone = build_backbone(source.backbone, source.dim, options=options)
    source.fill(backbone)
    network = Network(backbone, UnitHead(source.dim), source.backbone, options)
    encoder = finished_encoder(network, source.backbone, source.preprocessing, tokenizer=source.tokenizer)
    kind, _, folder = model.partition(":")
    if kind == SENTENCE:  # it also embeds as it is, without an import: the same model, so one generation
        known = sentence_spec(Path(folder), source.dim)
        same = {"generation": known.generation, "prefixes": known.prefixes, "fingerprint": known.fingerprint}
        encoder.spec = encoder.spec.model_copy(update={**same, "content": encoder.spec.fingerprint})
    return encoder
