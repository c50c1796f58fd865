"""Encoders of vectors in NumPy alone: fitted maps and bases, for machines without PyTorch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Array, at_a_time, unit
from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.errors import DataError, RunError
from nobackfill.models.array_forms import refuse_unknown_options, slerp, unit_parts, unit_rows
from nobackfill.models.spec import Architecture, EmbeddingSpec, OlderSpace, fingerprint

if TYPE_CHECKING:
    from nobackfill.data import Samples

Floats = NDArray[np.float32]
VECTORS = "vectors/"
FORM = re.compile(rf"{VECTORS}(linear|keep|relu|slerp)(?:\+(\d{{1,5}}))?")
OPTIONS = {"unit": {"dim"}, "bt2_vectors": {"dim", "extra_dim", "old_dim", "scale", "beside"}}  # of the heads it knows
Shape = tuple[int, ...]


class ArrayEncoder:
    """What `VectorEncoder` computes in PyTorch, to rounding, for `unit` and `bt2_vectors` heads.

    Attributes:
        spec: size, norm, lineage, preprocessing, fingerprint.
        weights: float32 arrays by the names they have in `model.safetensors`.
    """

    BATCH = 4096

    def __init__(self, spec: EmbeddingSpec, weights: Mapping[str, Array]) -> None:
        self.spec = spec
        self.weights: dict[str, Array] = dict(weights)

    @classmethod
    def finished(
        cls, method: str, architecture: Architecture, weights: Mapping[str, Floats], prefix: OlderSpace
    ) -> ArrayEncoder:
        """The encoder of a map that has just been fitted: fingerprint taken, generation named."""
        preprocessing = VectorPreprocessing(input_dim=int(architecture.backbone_options["in_features"]))
        digest = fingerprint(architecture, preprocessing, weights)
        dim, norm = size_of(architecture)
        spec = EmbeddingSpec(
            generation=f"{method}-{digest[:12]}",
            dim=dim,
            norm=norm,
            prefixes=(prefix,),
            fingerprint=digest,
            architecture=architecture,
            preprocessing=preprocessing,
        )
        return cls(spec, weights)

    @property
    def input_dim(self) -> int:
        """Size of the vectors it takes."""
        assert isinstance(self.spec.preprocessing, VectorPreprocessing)  # noqa: S101 (see `shapes_of`)
        return self.spec.preprocessing.input_dim

    def encode(self, samples: object, batch_size: int | None = None, workers: int = 0) -> Floats:  # noqa: ARG002
        """Embed vectors.

        Args:
            samples: floats [n, input_dim] of any width and norm, also memory-mapped.
            batch_size: rows at a time; None: `BATCH`.
            workers: not used.

        Returns:
            float32 [n, dim], in the order given.

        Raises:
            DataError: for arrays of another shape or type, and rows without a direction (named).
        """
        array = check_vectors(samples, self.spec, self.input_dim)
        embeddings = np.empty((len(array), self.spec.dim), np.float32)
        rows, numbers = at_a_time(batch_size, self.BATCH), np.arange(len(array))
        for start in range(0, len(array), rows):
            block = unit(array[start : start + rows], "vectors", numbers=numbers[start : start + rows])
            embeddings[start : start + rows] = self._embed(block)
        return embeddings

    def encode_set(self, samples: Samples, workers: int = 0, batch_size: int | None = None) -> Floats:
        """Embed a data set of vectors; raises `DataError` for one of images."""
        return self.encode(samples.inputs("vector"), batch_size, workers)

    def _embed(self, rows: Floats) -> Floats:
        features = self._features(rows)
        if self.spec.architecture.head == "unit":
            return unit_rows(features)
        options = self.spec.architecture.head_options
        dim, old_dim = int(options["dim"]), int(options["old_dim"])
        z = np.float32(options["scale"]) * unit_rows(features[:, :dim]) @ self.weights["head.basis.P.weight"].T
        if options["extra_dim"]:
            z = np.concatenate([unit_rows(self._linear("head.extra", features)), z], axis=1)
        return np.concatenate([z[:, :old_dim] @ self.weights["head.basis.B.weight"].T, z[:, old_dim:]], axis=1)

    def _features(self, rows: Floats) -> Floats:
        form, hidden = _form(self.spec.architecture)
        if "first" in self.spec.architecture.backbone_options:
            rows = unit_parts(rows, self._first)
        if form == "slerp":
            alpha = float(self.spec.architecture.backbone_options["alpha"])
            turned = rows[:, self._first :] @ self.weights["backbone.rotation.weight"].T
            return slerp(rows[:, : self._first], unit_rows(turned), alpha)
        if form == "relu":
            return self._linear("backbone.net.4", self._hidden(rows))
        kept = self._linear("backbone.linear", rows) if form == "linear" else rows
        if not hidden:
            return kept
        net = self._linear("backbone.net.2", self._gelu(self._linear("backbone.net.0", rows)))
        return kept + net if form == "linear" else np.concatenate([kept, net], axis=1)

    def hidden(self, samples: Array) -> Floats:
        """The last hidden layer of a `relu` net, float32 [n, hidden], of floats [n, input_dim]."""
        rows = unit_rows(np.asarray(samples, np.float32))
        return self._hidden(
            unit_parts(rows, self._first) if "first" in self.spec.architecture.backbone_options else rows
        )

    @property
    def _first(self) -> int:
        return int(self.spec.architecture.backbone_options["first"])

    def _hidden(self, rows: Floats) -> Floats:
        below: Floats = np.maximum(self._linear("backbone.net.0", rows), 0)
        result: Floats = np.maximum(self._linear("backbone.net.2", below), 0)
        return result

    def _linear(self, layer: str, rows: Floats) -> Floats:
        result: Floats = rows @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]
        return result

    @cached_property
    def _gelu(self) -> Callable[[Floats], Floats]:
        import numba  # it takes a while, and few maps need it

        @numba.vectorize(["float32(float32)"])  # type: ignore[untyped-decorator, no-untyped-call]  # NumPy has no erf
        def gelu(value: float) -> float:
            return 0.5 * value * (1 + math.erf(value * math.sqrt(0.5)))

        compiled: Callable[[Floats], Floats] = gelu
        return compiled


def size_of(architecture: Architecture) -> tuple[int, float]:
    """Size and norm of the embedding of an architecture that `shapes_of` takes."""
    options = architecture.head_options
    if architecture.head == "unit":
        return int(options["dim"]), 1.0
    return int(options["dim"] + options["extra_dim"]), math.hypot(options["scale"], bool(options["extra_dim"]))


def shapes_of(spec: EmbeddingSpec) -> dict[str, Shape]:
    """Names and shapes of the weights that an `ArrayEncoder` of this spec has.

    Raises:
        RunError: for a model that `ArrayEncoder` does not compute, or sizes that do not fit together.
    """
    architecture, preprocessing = spec.architecture, spec.preprocessing
    options = architecture.head_options
    known = FORM.fullmatch(architecture.backbone) and set(options) == OPTIONS.get(architecture.head)
    if not known or not isinstance(preprocessing, VectorPreprocessing):
        raise RunError(f"generation {spec.generation}: this model needs PyTorch: pip install 'nobackfill[train]'")
    size = preprocessing.input_dim
    form, hidden = _form(architecture)
    features = int(options["dim"] + options.get("beside", 0))
    refuse_unknown_options(form, architecture.backbone_options, size, spec.generation)
    fits = {
        "linear": True,
        "relu": hidden > 0,
        "slerp": architecture.backbone_options.get("first") == features and not hidden,
        "keep": features > size if hidden else features == size,
    }
    if not fits[form]:
        raise RunError(f"generation {spec.generation}: damaged: its sizes are inconsistent")
    shapes: dict[str, Shape] = {}
    if form == "slerp":
        shapes |= {"backbone.rotation.weight": (features, size - features)}
    if form == "linear":
        shapes |= _layer("backbone.linear", features, size)
    if hidden:
        shapes |= _layer("backbone.net.0", hidden, size)
    if form == "relu":
        shapes |= _layer("backbone.net.2", hidden, hidden) | _layer("backbone.net.4", features, hidden)
    elif hidden:
        shapes |= _layer("backbone.net.2", features if form == "linear" else features - size, hidden)
    if architecture.head == "bt2_vectors":
        dim, extra_dim, old_dim = (int(options[key]) for key in ("dim", "extra_dim", "old_dim"))
        shapes |= {"head.basis.P.weight": (dim, dim), "head.basis.B.weight": (old_dim, old_dim)}
        if extra_dim:
            shapes |= _layer("head.extra", extra_dim, features)
    return shapes


def _layer(name: str, rows: int, columns: int) -> dict[str, Shape]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _form(architecture: Architecture) -> tuple[str, int]:
    form = FORM.fullmatch(architecture.backbone)
    if form is None:
        raise RunError(f"backbone {architecture.backbone!r}: expected vectors/linear, keep, relu or slerp")
    return form[1], int(form[2] or 0)


def check_vectors(samples: object, spec: EmbeddingSpec, size: int) -> Array:
    """The samples, if they are floats [n, size] of any width; raises `DataError`."""
    array = np.asarray(samples)
    if array.ndim != 2 or array.shape[1] != size or array.dtype.kind != "f":
        wanted = f"floats [n, {size}]{side_by_side(spec)}"
        raise DataError(f"vectors: expected {wanted}, found {array.dtype} {list(array.shape)}")
    return array


def side_by_side(spec: EmbeddingSpec) -> str:
    """What a row is made of, in words, where an encoder takes two vectors at once; else nothing."""
    options = spec.architecture.backbone_options
    if "first" not in options:
        return ""
    first = int(options["first"])
    return f" ({first} + {int(options['in_features']) - first} values, two vectors side by side)"
