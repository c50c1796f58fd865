"""Run folders: an encoder as `model.safetensors` + `embedding.json`. Reading one never runs code from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nobackfill.config import explain
from nobackfill.errors import RunError
from nobackfill.files import atomic_file, write_text
from nobackfill.models.encoder import Encoder
from nobackfill.models.kinds import ENCODERS
from nobackfill.models.network import build_network
from nobackfill.models.spec import EmbeddingSpec, fingerprint, refuse_other_formats
from nobackfill.models.text import TextEncoder

WEIGHTS, SPEC, TOKENIZER = "model.safetensors", "embedding.json", "tokenizer.json"


def save(encoder: Encoder, folder: Path) -> None:
    """Write weights and spec into an existing folder."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.network.state_dict().items()}
    write_tensors(folder / WEIGHTS, weights)
    if isinstance(encoder, TextEncoder):
        write_text(folder / TOKENIZER, encoder.tokenizer)
    write_text(folder / SPEC, encoder.spec.model_dump_json(indent=2) + "\n")


def is_run(folder: Path) -> bool:
    """Whether a finished run is there."""
    return (folder / SPEC).is_file() and (folder / WEIGHTS).is_file()


def load_spec(run: str | Path) -> EmbeddingSpec:
    """Read `embedding.json` of a run folder; raises `RunError` naming what is missing or wrong."""
    run = Path(run)
    if not run.is_dir():
        unfinished = Path(f"{run}.unfinished").is_dir()
        hint = "it is unfinished; `nobackfill train … --resume` goes on with it" if unfinished else "train it first"
        raise RunError(f"{run}: no such run folder; {hint}")
    for name in (SPEC, WEIGHTS):
        if not (run / name).is_file():
            raise RunError(f"{run}: not a run folder, {name} is missing in it")
    content = (run / SPEC).read_bytes()
    refuse_other_formats(run / SPEC, content)
    try:
        return EmbeddingSpec.model_validate_json(content)
    except pydantic.ValidationError as error:
        raise RunError(f"{run / SPEC}: damaged: {explain(error, EmbeddingSpec)}") from error


def load(run: str | Path, device: str | torch.device | None = None) -> Encoder:
    """Load the encoder of a run folder.

    Args:
        run: folder written by `train`.
        device: where to put it; None takes the accelerator if there is one, else the CPU.

    Raises:
        RunError: if the folder is missing or not whole, a tensor is missing, surplus or misshapen, or the weights are
            not those the spec was written for.
    """
    spec = load_spec(run)
    path = Path(run) / WEIGHTS
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path}: damaged, not readable as safetensors: {error}; train this run again") from error
    network = build_network(spec.architecture)
    head = network.head
    if (
        spec.dim != head.dim
        or abs(spec.norm - head.norm) > 1e-6
        or spec.generation.split("-")[-1] != spec.fingerprint[:12]
    ):
        raise RunError(f"{path.parent / SPEC}: damaged: dim, norm or generation do not belong to its architecture")
    expected = network.state_dict()
    for name in sorted({*expected, *weights}):
        if name not in weights:
            raise RunError(f"{path}: tensor {name!r} is missing")
        if name not in expected:
            raise RunError(f"{path}: surplus tensor {name!r}")
        found, wanted = (f"{each[name].dtype} {list(each[name].shape)}" for each in (weights, expected))
        if found != wanted:
            raise RunError(f"{path}: tensor {name!r} is {found}, expected {wanted}")
    if fingerprint(spec.architecture, spec.preprocessing, weights) != spec.fingerprint:
        raise RunError(f"{path}: damaged: its weights or {SPEC} changed since they were written; train this run again")
    network.load_state_dict(weights)
    kind = ENCODERS[spec.modality]
    more = [_read_text(path.parent / TOKENIZER)] if issubclass(kind, TextEncoder) else []
    encoder = kind(network, spec, *more)
    return encoder.to(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged or missing: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; raises `RunError` where the disk does not take them."""
    try:
        with atomic_file(path) as temporary:  # safetensors alone would let nobody else read the file
            save_file(dict(tensors), temporary)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: cannot be written: {error}") from error
