"""What a gallery knows of the models whose vectors it holds: the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nobackfill.errors import GalleryError

Floats = NDArray[np.float32]


class _Prefix(Protocol):
    @property
    def fingerprint(self) -> str: ...


class _Spec(Protocol):
    """What is needed of `EmbeddingSpec`; vectors from elsewhere describe themselves by `Generation`."""

    @property
    def generation(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def prefixes(self) -> Sequence[_Prefix]: ...


class Curve(BaseModel):
    """Expected score against the share of the gallery that is embedded anew, measured on a sample."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    shares: tuple[float, ...]
    top1: tuple[float, ...]
    mean_ap: tuple[float, ...]
    queries: int

    def at(self, share: float) -> tuple[float, float]:
        """Top-1 and mAP at a share, interpolated."""
        return float(np.interp(share, self.shares, self.top1)), float(np.interp(share, self.shares, self.mean_ap))


class Generation(BaseModel):
    """One model of the lineage.

    Attributes:
        name: id of the model, as in its run folder.
        dim: size of its vectors; they are stored with unit norm.
        fingerprint: says which model it is; a query or vector of another is refused.
        answers: fingerprints of the older generations whose vectors its own compare with.
        scales: fingerprint of an older generation → γ, the mean norm of a unit vector's first values (as many as that
            generation has). Older queries' scores on this generation's items are divided by it.
        curve: what backfilling from the generation before to this one is worth, if that could be measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    dim: int = Field(gt=0, le=65536)
    fingerprint: str
    answers: tuple[str, ...] = ()
    scales: dict[str, float] = Field(default_factory=dict)
    curve: Curve | None = None

    @classmethod
    def of(cls, spec: _Spec) -> Generation:
        """From the spec of an encoder."""
        older = tuple(prefix.fingerprint for prefix in spec.prefixes)
        return cls(name=spec.generation, dim=spec.dim, fingerprint=spec.fingerprint, answers=older)


class Manifest(BaseModel):
    """The lineage of a gallery, oldest generation first. Generations are numbered from 1 in the stores.

    Attributes:
        generations: of the lineage.
        source: where the items came from, as `--data` named it; None for vectors from a file.
        calibration: number of an older generation → factor and offset that bring its scores, with queries of the newest
            one, to the scale of new items' scores; empty if scores are plain.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    generations: tuple[Generation, ...]
    source: str | None = None
    calibration: dict[int, tuple[float, float]] = Field(default_factory=dict)

    @property
    def newest(self) -> int:
        """Number of the newest generation."""
        return len(self.generations)

    def number(self, fingerprint: str) -> int:
        """Number of a generation; raises `GalleryError` for a model that is not of this lineage."""
        for number, generation in enumerate(self.generations, start=1):
            if generation.fingerprint == fingerprint:
                return number
        known = ", ".join(generation.name for generation in self.generations)
        raise GalleryError(
            f"a model of fingerprint {fingerprint[:12]}… is not of this gallery's lineage ({known}); "
            "add it by `gallery upgrade`, or search with one of these"
        )

    def query_vectors(self, queries: Floats, asked: int, stored: int) -> Floats:
        """Unit queries of generation `asked` as inner-product queries for the unit vectors of generation `stored`.

        A newer query meets an older item by its first values: the score the item has as [φ ; 0] among new vectors.
        An older query meets a newer item's first values, which have norm γ on average and count as if it were 1.
        """
        asker, holder = self.generations[asked - 1], self.generations[stored - 1]
        if asked == stored:
            return queries
        if asked > stored:
            return np.ascontiguousarray(queries[:, : holder.dim])
        padded = np.zeros((len(queries), holder.dim), np.float32)
        padded[:, : asker.dim] = queries / np.float32(holder.scales[asker.fingerprint])
        return padded


def read_manifest(data: bytes, where: str) -> Manifest:
    """Raises `GalleryError` if it is damaged."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise GalleryError(f"{where}: damaged manifest: {error.errors()[0]['msg'].lower()}") from error


def unit_rows(vectors: Any, dim: int, what: str) -> Floats:
    """Vectors [n, dim] as float32 of unit norm; raises `GalleryError` naming the first row that is not usable."""
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] != dim or array.dtype.kind != "f":
        raise GalleryError(f"{what}: expected floats [n, {dim}], found {array.dtype} {list(array.shape)}")
    rows = array.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(bad):
        raise GalleryError(f"{what}: row {bad[0]} is zero or not finite, and {len(bad)} such rows in all")
    rows /= norms[:, None]
    return rows
