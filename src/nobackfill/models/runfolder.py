"""Run folders: an encoder as `model.safetensors` + `embedding.json`. Reading one never runs code from it.

PyTorch is imported where a model needs it: the runs of fitted maps are written and read without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
from safetensors import SafetensorError, safe_open

from nobackfill.arrays import Array
from nobackfill.errors import RunError, one_line, require, shortened
from nobackfill.files import atomic_file, read_text, require_regular, write_text
from nobackfill.models.array_encoder import ArrayEncoder, shapes_of, size_of
from nobackfill.models.sentence_encoder import load_named
from nobackfill.models.spec import EmbeddingSpec, fingerprint, read_spec, spec_text
from nobackfill.untrusted import read_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nobackfill.models.encoder import Encoder

Weight = TypeVar("Weight")
WEIGHTS, SPEC, TOKENIZER = "model.safetensors", "embedding.json", "tokenizer.json"
TOKENIZER_BYTES = 2**28
TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}
"""Types of tensors: the file's name of each, and PyTorch's."""


def save(encoder: Encoder | ArrayEncoder, folder: Path) -> None:
    """Write weights and spec into an existing folder."""
    if isinstance(encoder, ArrayEncoder):
        write_tensors(folder / WEIGHTS, encoder.weights)
    else:
        state = encoder.network.state_dict()
        write_tensors(folder / WEIGHTS, {name: each.detach().cpu().contiguous() for name, each in state.items()})
    tokenizer = getattr(encoder, "tokenizer", None)
    if tokenizer is not None:
        write_text(folder / TOKENIZER, str(tokenizer))
    write_text(folder / SPEC, spec_text(encoder.spec))


def is_run(folder: Path) -> bool:
    """Whether a finished run is there."""
    return (folder / SPEC).is_file() and (folder / WEIGHTS).is_file()


def read_record(path: Path) -> dict[str, object]:
    """What a JSON file of a run has on record, such as `metrics.json`; raises `RunError` if it is damaged."""
    try:
        return read_object(path)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged: {one_line(error)}; remove {path.parent} to train it again") from error


def load_spec(run: str | Path) -> EmbeddingSpec:
    """Read `embedding.json` of a run folder; raises `RunError` naming what is missing or wrong."""
    run = Path(run)
    if not run.is_dir():
        unfinished = Path(f"{run}.unfinished").is_dir()
        hint = "it is unfinished; `nobackfill train … --resume` resumes it" if unfinished else "train it first"
        raise RunError(f"{run}: no such run folder; {hint}")
    for name in (SPEC, WEIGHTS):
        if not (run / name).is_file():
            raise RunError(f"{run}: not a run folder: {name} is missing")
    return read_spec(run / SPEC)


def load(run: str | Path, device: str | torch.device | None = None) -> Encoder:
    """Load the encoder of a run folder, of `sentence:FOLDER` (a SentenceTransformer) or `python:MODULE:FUNCTION`.

    Where PyTorch is not installed, a run of vectors comes as an `ArrayEncoder`, which encodes alike.

    Args:
        run: folder written by `train`, `fit` or an import.
        device: where to put it; None takes the accelerator if there is one, else the CPU.

    Raises:
        RunError: if the folder is missing or not whole, a tensor is missing, surplus or misshapen, or the weights are
            not those the spec was written for.
        MissingPackageError: if the model needs PyTorch and there is none.
    """
    named = load_named(str(run), device)
    if named is not None:
        return cast("Encoder", named)
    spec = load_spec(run)
    try:
        import torch
    except ModuleNotFoundError:
        if spec.modality == "vector":
            return cast("Encoder", load_arrays(run))
        require("torch", what=f"{run}: this model of {spec.modality}s")
        raise
    from safetensors.torch import load_file

    from nobackfill.models.kinds import ENCODERS
    from nobackfill.models.network import build_network
    from nobackfill.models.text import TextEncoder

    path = Path(run) / WEIGHTS
    with torch.device("meta"):  # shapes without memory: sizes in the spec are compared before any is taken
        described = build_network(spec.architecture)
    expected = {name: _kind(each) for name, each in described.state_dict().items()}
    _check(path, spec, expected, described.head.dim, described.head.norm)
    weights: dict[str, Tensor] = _read(path, load_file)
    _check_fingerprint(path, spec, weights)
    network = build_network(spec.architecture)
    network.load_state_dict(weights)
    kind = ENCODERS[spec.modality]
    more = [_read_text(path.parent / TOKENIZER)] if issubclass(kind, TextEncoder) else []
    encoder: Encoder = kind(network, spec, *more)
    return encoder.to(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")


def load_arrays(run: str | Path) -> ArrayEncoder:
    """Load a run of vectors without PyTorch.

    Raises:
        RunError: as `load`, and for a model that `ArrayEncoder` does not compute.
    """
    from safetensors.numpy import load_file

    spec = load_spec(run)
    path = Path(run) / WEIGHTS
    expected = {name: f"torch.float32 {list(shape)}" for name, shape in shapes_of(spec).items()}
    _check(path, spec, expected, *size_of(spec.architecture))
    weights: dict[str, Array] = _read(path, load_file)
    _check_fingerprint(path, spec, weights)
    return ArrayEncoder(spec, weights)


def _read(path: Path, load_file: Callable[[Path], dict[str, Weight]]) -> dict[str, Weight]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _header(path: Path) -> dict[str, str]:
    """Type and shape of each tensor in a file, by name; no tensor is read."""
    try:
        require_regular(path)
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            return {
                name: f"torch.{TYPES.get(each.get_dtype(), each.get_dtype())} {list(each.get_shape())}"
                for name, each in slices.items()
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: damaged, not readable as safetensors: {one_line(error)}; train this run again")


def _check(path: Path, spec: EmbeddingSpec, expected: Mapping[str, str], dim: int, norm: float) -> None:
    """Raise `RunError` unless the file has the tensors of this spec; looks at nothing but its header.

    Args:
        path: the file of weights.
        spec: its spec.
        expected: type and shape by name.
        dim: size of the architecture's embedding.
        norm: its norm.
    """
    found = _header(path)
    named = spec.generation.split("-")[-1] == spec.fingerprint[:12]
    if spec.dim != dim or abs(spec.norm - norm) > 1e-6 or not named:
        raise RunError(f"{path.parent / SPEC}: damaged: dim, norm or generation do not match its architecture")
    for prefix in spec.prefixes:
        if prefix.dim > spec.dim:
            name = shortened(prefix.generation)
            raise RunError(
                f"{path.parent / SPEC}: damaged: prefix {name} has {prefix.dim} values, expected at most {spec.dim}"
            )
    for name in sorted({*expected, *found}):
        if name not in found:
            raise RunError(f"{path}: tensor {name!r} is missing")
        if name not in expected:
            raise RunError(f"{path}: unexpected tensor {shortened(name)}")
        if found[name] != expected[name]:
            raise RunError(f"{path}: tensor {name!r} is {found[name][:200]}, expected {expected[name]}")


def _check_fingerprint(path: Path, spec: EmbeddingSpec, weights: Mapping[str, Tensor] | Mapping[str, Array]) -> None:
    if fingerprint(spec.architecture, spec.preprocessing, weights) != (spec.content or spec.fingerprint):
        raise RunError(f"{path}: damaged: its weights or {SPEC} changed since they were written; train this run again")


def _kind(weight: Tensor | Array) -> str:
    """Type and shape of a tensor or array."""
    return f"torch.{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}"


def _read_text(path: Path) -> str:
    try:
        return read_text(path, TOKENIZER_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged or missing: {one_line(error)}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor] | Mapping[str, Array]) -> None:
    """Write tensors (or arrays) as safetensors; raises `RunError` where the disk does not take them."""
    save_file: Callable[..., None]
    if all(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
        from safetensors.numpy import save_file
    else:
        from safetensors.torch import save_file
    try:
        with atomic_file(path) as temporary:  # safetensors alone would let nobody else read the file
            save_file(dict(tensors), temporary)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: cannot be written: {error}") from error
