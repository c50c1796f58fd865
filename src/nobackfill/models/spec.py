"""What an embedding is: its generation, size, norm, and the older spaces it contains as prefixes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from nobackfill.arrays import Array
from nobackfill.config import Modality, explain
from nobackfill.data.preprocessing import Preprocessing, TextPreprocessing, VectorPreprocessing
from nobackfill.errors import RunError, one_line, shortened
from nobackfill.untrusted import read_object

if TYPE_CHECKING:
    from torch import Tensor

FORMAT: Literal[1] = 1
RELEASES: dict[int, str] = {1: "0.1"}
"""The last release that reads each format of `embedding.json`; a format that is given up stays here."""

MAX_BYTES = 2**24
PREFIXES_DIGEST = "prefixes_digest"

AnyPreprocessing = Preprocessing | TextPreprocessing | VectorPreprocessing


class Architecture(BaseModel):
    """What a network is built from; part of `embedding.json`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    backbone: str
    backbone_options: dict[str, int | float | str] = Field(default_factory=dict)
    """Only for backbones whose sizes do not follow from the name (`clip/…`)."""
    head: str
    head_options: dict[str, bool | int | float] = Field(default_factory=dict)


class OlderSpace(BaseModel):
    """An older generation with whose vectors the first `dim` values of an embedding are compatible."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    generation: str
    dim: int = Field(gt=0)
    fingerprint: str


def named_prefix(name: str, dim: int) -> OlderSpace:
    """A model that is known by its name only, since all there is of it are vectors; the name is its fingerprint."""
    return OlderSpace(generation=name, dim=dim, fingerprint=f"name:{name}")


class EmbeddingSpec(BaseModel):
    """Contents of `embedding.json`.

    Attributes:
        format: number of the file's format; no part of the fingerprint.
        generation: id of the model that makes these vectors: its method and the start of its fingerprint.
        dim: number of values.
        norm: Euclidean norm of every vector.
        prefixes: older generations, newest first.
        fingerprint: SHA-256 of architecture, preprocessing and weights; or, of an imported model, the one by which its
            own folder is known: both give the same vectors, so they are one generation.
        content: SHA-256 of architecture, preprocessing and weights where `fingerprint` is another one.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = FORMAT
    generation: str
    dim: int = Field(gt=0)
    norm: float = Field(gt=0)
    prefixes: tuple[OlderSpace, ...] = ()
    fingerprint: str
    content: str | None = None
    architecture: Architecture
    preprocessing: AnyPreprocessing

    @property
    def modality(self) -> Modality:
        """What the encoder takes."""
        return self.preprocessing.modality

    def compatible_with(self, other: EmbeddingSpec) -> bool:
        """Whether vectors of `other` can be searched: of the same generation, or of one of the prefixes."""
        return other.fingerprint in {self.fingerprint, *(prefix.fingerprint for prefix in self.prefixes)}

    def as_prefixes(self) -> tuple[OlderSpace, ...]:
        """The prefixes of a generation trained to be compatible with this one."""
        return (OlderSpace(generation=self.generation, dim=self.dim, fingerprint=self.fingerprint), *self.prefixes)


def read_spec(path: Path) -> EmbeddingSpec:
    """The spec in an `embedding.json`.

    Raises:
        RunError: if it is damaged, of a format this release does not read, or names prefixes that it was not written
            with.
    """
    try:
        tree = read_object(path, MAX_BYTES)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged: {one_line(error)}") from error
    _refuse_other_formats(path, tree)
    digest = tree.pop(PREFIXES_DIGEST, None)
    try:
        spec = EmbeddingSpec.model_validate(tree)
    except (pydantic.ValidationError, OverflowError) as error:
        reason = explain(error, EmbeddingSpec) if isinstance(error, pydantic.ValidationError) else one_line(error)
        raise RunError(f"{path}: damaged: {reason}") from error
    # Runs from before there was a digest open without it.
    if digest not in (None, prefixes_digest(spec)):
        raise RunError(f"{path}: damaged: its prefixes changed since they were written; train this run again")
    return spec


def spec_text(spec: EmbeddingSpec) -> str:
    """The text of an `embedding.json`, which `read_spec` reads back equal."""
    tree = {**spec.model_dump(mode="json"), PREFIXES_DIGEST: prefixes_digest(spec)}
    return json.dumps(tree, indent=2) + "\n"


def prefixes_digest(spec: EmbeddingSpec) -> str:
    """SHA-256 that ties prefixes to the model they were written for: the fingerprint does not cover them."""
    described = [spec.fingerprint, [prefix.model_dump() for prefix in spec.prefixes]]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _refuse_other_formats(path: Path, tree: Mapping[str, object]) -> None:
    """Raise `RunError` for an `embedding.json` of a format this release does not read."""
    number = tree.get("format", FORMAT)
    if number == FORMAT:
        return
    if isinstance(number, int) and number > FORMAT:
        advice = "written by a newer release of nobackfill; upgrade it"
    else:
        release = RELEASES.get(number) if isinstance(number, int) else None
        advice = f"open it with nobackfill {release}" if release else "open it with the release that wrote it"
    raise RunError(f"{path}: has format {shortened(number)}, and this release reads format {FORMAT}: {advice}")


def fingerprint(
    architecture: Architecture,
    preprocessing: AnyPreprocessing,
    weights: Mapping[str, Tensor] | Mapping[str, Array],
) -> str:
    """SHA-256 over everything that decides what a vector means: two encoders agree on it only if they encode alike."""
    digest = hashlib.sha256()
    # Without defaults, so that a setting added later leaves the fingerprints of older models as they are.
    parts = {"architecture": architecture, "preprocessing": preprocessing}
    described = {name: part.model_dump(exclude_defaults=True) for name, part in parts.items()}
    digest.update(json.dumps(described, sort_keys=True).encode())
    for name in sorted(weights):
        dtype, array = _contents(weights[name])
        digest.update(f"\n{name} {dtype} {list(array.shape)}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _contents(weight: Tensor | Array) -> tuple[str, Array]:
    """The type as PyTorch names it, and the values."""
    if isinstance(weight, np.ndarray):
        return f"torch.{weight.dtype}", weight
    return str(weight.dtype), weight.detach().cpu().numpy()
