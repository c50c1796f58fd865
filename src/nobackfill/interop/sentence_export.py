"""A run as a SentenceTransformer folder that loads everywhere, without this package and without `trust_remote_code`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from nobackfill.arrays import Floats
from nobackfill.errors import ConfigError, RunError, one_line, require
from nobackfill.files import atomic_folder, require_new
from nobackfill.interop.export import Exported
from nobackfill.interop.prompts import Prompts, prompts_of
from nobackfill.maps.lineage import BASE
from nobackfill.models.encoder import Encoder
from nobackfill.models.runfolder import load
from nobackfill.models.sentence_encoder import SENTENCE, SentenceEncoder, load_sentence_encoder
from nobackfill.models.sentence_identity import write_lineage
from nobackfill.models.spec import OlderSpace
from nobackfill.models.vector_net import VectorNet
from nobackfill.models.vectors import VectorEncoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FORM = "sentence-transformers"
TOLERANCE = 1e-5  # of a value, in units of the embedding's norm
TEXTS = ("a", "Where is my card?", "The first backfill took nine days.", "une phrase en français, 12 3", "word " * 40)
"""What a folder is tried with before it appears."""


def export_sentence_transformer(run: str | Path, out: str | Path, base: str | Path | None = None) -> Exported:
    """Write the encoder of a run as a new SentenceTransformer folder, whole or not at all.

    The head becomes `Dense` and `Normalize` modules. The folder's `nobackfill.json` holds the lineage, so that in a
    gallery `sentence:FOLDER` is the run's generation. `encode(texts, truncate_dim=d)` gives the part that old vectors
    of d values compare with.

    Args:
        run: run folder: a fitted map of vectors (with `base`), or a text run (`sentence:…`, `static`).
        out: folder to write, absent or empty.
        base: folder of the SentenceTransformer whose vectors a fitted map takes, also as `sentence:FOLDER`.

    Raises:
        ConfigError: if there is no `base` where one is needed, or it is another model than the one fitted on.
        RunError: for a run that standard modules cannot express; nothing is written then.
        MissingPackageError: where sentence-transformers is not installed.
    """
    run, out = Path(run), Path(out)
    require("sentence_transformers", what=f"export to {FORM}")
    require_new(out)
    encoder = load(run, "cpu")
    try:
        model, expected = _of_map(run, encoder, base) if isinstance(encoder, VectorEncoder) else _of_text(encoder)
    except RunError as error:
        raise RunError(f"{run}: cannot be exported to {FORM}: {error}") from error
    exported = encoder.spec.as_prefixes()[0]
    difference = save_sentence_folder(model, out, encoder.spec.prefixes, expected, exported)
    return Exported(out, encoder.spec, difference)


def save_sentence_folder(
    model: SentenceTransformer,
    out: Path,
    prefixes: tuple[OlderSpace, ...],
    expected: Floats | None = None,
    exported: OlderSpace | None = None,
) -> float | None:
    """Write a `SentenceTransformer` of standard modules and its lineage, whole or not at all.

    Args:
        model: the `SentenceTransformer`.
        out: folder to write.
        prefixes: the older models that the first values compare with, newest first.
        expected: vectors of `TEXTS` [5, dim] that the folder has to give.
        exported: the run whose vectors they are.

    Returns:
        The greatest difference from `expected`.

    Raises:
        RunError: if the folder gives other vectors.
    """
    difference = None
    with atomic_folder(out) as working:
        model.save_pretrained(str(working), create_model_card=False)
        write_lineage(working, prefixes, exported)
        found = load_sentence_encoder(working, "cpu").encode(list(TEXTS))
        if expected is not None:
            difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
            if not difference <= TOLERANCE * float(np.linalg.norm(expected, axis=1).max()):  # nor NaN
                raise RunError(f"{out}: not written: it gives vectors that differ by up to {difference:.2g}")
    return difference


def sentence_model(modules: Sequence[nn.Module], prompts: Prompts | None = None) -> SentenceTransformer:
    """A `SentenceTransformer` of these modules on the CPU."""
    from sentence_transformers import SentenceTransformer

    given = {} if prompts is None else dict(prompts)
    return SentenceTransformer(modules=list(modules), device="cpu", **given)


def _of_map(run: Path, encoder: VectorEncoder, base: str | Path | None) -> tuple[SentenceTransformer, Floats]:
    from sentence_transformers.sentence_transformer.modules import Normalize

    from nobackfill.interop.standard_modules import dense, head_modules, map_modules

    net = encoder.network.backbone
    if not isinstance(net, VectorNet):
        raise RunError(
            f"no standard modules compute its backbone {encoder.spec.architecture.backbone!r}; export a fit of "
            "procrustes, ridge, low_rank, infonce or mlp"
        )
    if base is None:
        raise ConfigError(f"--base is missing: {run} takes vectors; name the SentenceTransformer that makes them")
    before = load_sentence_encoder(str(base).removeprefix(SENTENCE), "cpu")
    _check_base(run, encoder, before)
    model = before.model
    modules = list(model)
    if model.truncate_dim is not None:
        modules.append(dense(torch.eye(before.spec.dim, model[-1].get_embedding_dimension())))
    if not isinstance(modules[-1], Normalize):
        modules.append(Normalize())
    modules += [*map_modules(net), *head_modules(encoder.network.head)]
    prompts = Prompts(prompts=dict(model.prompts), default_prompt_name=model.default_prompt_name)
    return sentence_model(modules, prompts), encoder.encode(before.encode(list(TEXTS)))


def _of_text(encoder: Encoder) -> tuple[SentenceTransformer, Floats]:
    from nobackfill.interop.standard_modules import head_modules
    from nobackfill.interop.text_modules import backbone_modules

    if encoder.spec.modality != "text":
        raise RunError(f"it embeds {encoder.spec.modality}s")
    modules = [*backbone_modules(encoder), *head_modules(encoder.network.head)]
    return sentence_model(modules, prompts_of(encoder)), encoder.encode(list(TEXTS))


def _check_base(run: Path, encoder: VectorEncoder, base: SentenceEncoder) -> None:
    """Raise `ConfigError` unless these are the vectors that the run was fitted on."""
    if base.spec.dim != encoder.input_dim:
        raise ConfigError(f"--base: {base.spec.generation} has {base.spec.dim} values, but {run} takes "
                          f"{encoder.input_dim}")  # fmt: skip
    noted = run / BASE
    if not noted.is_file():
        return
    try:
        fitted_on = OlderSpace.model_validate(json.loads(noted.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunError(f"{noted}: damaged: {one_line(error)}") from error
    if fitted_on.fingerprint != base.spec.fingerprint:
        raise ConfigError(
            f"--base: {run} was fitted on vectors of {fitted_on.generation}, and this is {base.spec.generation}"
        )
