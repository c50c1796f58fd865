"""The samples a model is trained and evaluated on: images, texts, vectors, behind one protocol.

To add a kind of sample: a class with `Samples`'s attributes, how it is read and served (`nobackfill.data.kinds`), its
section of a config, and the methods that take it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nobackfill.arrays import Array
from nobackfill.cache import file_stamps
from nobackfill.config import Modality
from nobackfill.data.preprocessing import Role
from nobackfill.data.tokens import Tokens
from nobackfill.errors import DataError

Images = Array | Sequence[str | Path | Image.Image]
"""uint8 [n, height, width, 3], or image files (or opened images) of any size."""
Inputs = Images | Sequence[str]
"""What an encoder is given: images, texts, or vectors as floats [n, dim]."""
AnySamples = TypeVar("AnySamples", bound="Samples")


class Samples(Protocol):
    """What set-up, the loop and evaluation need of a data set.

    Attributes:
        labels: int64 [n], each a position in `class_names`.
        class_names: names of all classes.
        origin: what the set was read from, for messages.
        skipped: a line for each sample that was left out because it cannot be read.
    """

    @property
    def labels(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def origin(self) -> str: ...  # noqa: D102
    @property
    def skipped(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def ids(self) -> Sequence[str]:
        """A name for each sample: its file, or its position."""

    def __len__(self) -> int: ...

    def take(self: AnySamples, index: NDArray[np.int64]) -> AnySamples:
        """The samples at these positions, in this order."""

    def inputs(self, modality: Modality) -> Inputs:
        """What an encoder of this modality is given; raises `DataError` if the set has nothing of the kind."""

    def digest(self, modality: Modality) -> str:
        """SHA-256 of `inputs`; of files their path, size and time of change."""

    def vectors_of(self, teacher: str) -> Array | None:
        """The vectors of a teacher, floats [n, dim], where they come with the samples and are not computed."""


@dataclass(frozen=True)
class ImageSamples:
    """Labelled images.

    Attributes:
        images: uint8 array [n, height, width, 3], or a sequence of n image files.
        captions: a text for each image, where `data.captions` names them.
    """

    images: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    origin: str
    skipped: tuple[str, ...] = ()
    captions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check("image", len(self.images), self)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> Sequence[str]:
        """The images' files, or the positions in an array."""
        return list(map(str, range(len(self)) if isinstance(self.images, np.ndarray) else self.images))

    def take(self, index: NDArray[np.int64]) -> ImageSamples:
        """The images at these positions, in this order."""
        images = self.images[index] if isinstance(self.images, np.ndarray) else [self.images[i] for i in index]
        captions = None if self.captions is None else tuple(self.captions[i] for i in index)
        return replace(self, images=images, labels=self.labels[index], captions=captions)

    def inputs(self, modality: Modality) -> Inputs:
        """The images, or of an encoder of texts their captions."""
        if modality == "text":
            return self._texts().inputs("text")
        _require("image", modality, self.origin)
        return self.images

    def digest(self, modality: Modality) -> str:
        """SHA-256 of the pixels or captions; of image files their path, size and time of change."""
        if modality == "text":
            return self._texts().digest("text")
        _require("image", modality, self.origin)
        if isinstance(self.images, np.ndarray):
            return _array_digest(self.images)
        return _list_digest(file_stamps([Path(str(path)) for path in self.images]))

    def vectors_of(self, teacher: str) -> None:
        """None come with images."""

    def _texts(self) -> TextSamples:
        if self.captions is None:
            raise DataError(
                f"{self.origin}: a text model needs a caption for each image; set data.captions to their file"
            )
        return TextSamples(self.captions, self.labels, self.class_names, self.origin)


@dataclass(frozen=True)
class TextSamples:
    """Labelled texts.

    Attributes:
        role: which prompt of an encoder goes before them, where they are queries or documents.
        tokens: what the encoder that trains reads of them, once that is known.
    """

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    origin: str
    skipped: tuple[str, ...] = ()
    role: Role | None = None
    tokens: Tokens | None = None

    def __post_init__(self) -> None:
        _check("text", len(self.texts), self)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> Sequence[str]:
        """Positions."""
        return list(map(str, range(len(self))))

    def take(self, index: NDArray[np.int64]) -> TextSamples:
        """The texts at these positions, in this order."""
        tokens = None if self.tokens is None else self.tokens.take(index)
        texts = tuple(self.texts[i] for i in index)
        return replace(self, texts=texts, labels=self.labels[index], tokens=tokens)

    def inputs(self, modality: Modality) -> Inputs:
        """The texts."""
        _require("text", modality, self.origin)
        return self.texts

    def digest(self, modality: Modality) -> str:
        """SHA-256 of the texts, and of their role if they have one."""
        _require("text", modality, self.origin)
        return _list_digest([*self.texts, *([{"role": self.role}] if self.role else [])])

    def vectors_of(self, teacher: str) -> None:
        """None come with texts."""


@dataclass(frozen=True)
class VectorSamples:
    """Vectors of another model as samples, and those of the old model of the same items, if they are known.

    Attributes:
        vectors: floats [n, d], also memory-mapped.
        old_vectors: floats [n, d_o].
        old_inputs: floats [n, m], what the old model takes, where that is not `vectors`.
    """

    vectors: Array
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    origin: str
    skipped: tuple[str, ...] = ()
    old_vectors: Array | None = None
    old_inputs: Array | None = None

    def __post_init__(self) -> None:
        _check("vector", len(self.vectors), self)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> Sequence[str]:
        """Positions."""
        return list(map(str, range(len(self))))

    def take(self, index: NDArray[np.int64]) -> VectorSamples:
        """The rows at these positions, in this order."""
        vectors, inputs = self.old_vectors, self.old_inputs
        return replace(
            self,
            vectors=self.vectors[index],
            labels=self.labels[index],
            old_vectors=None if vectors is None else vectors[index],
            old_inputs=None if inputs is None else inputs[index],
        )

    def inputs(self, modality: Modality) -> Inputs:
        """The vectors."""
        _require("vector", modality, self.origin)
        return self.vectors

    def digest(self, modality: Modality) -> str:
        """SHA-256 of the vectors."""
        _require("vector", modality, self.origin)
        return _array_digest(self.vectors)

    def vectors_of(self, teacher: str) -> Array | None:
        """The old model's vectors."""
        return self.old_vectors if teacher == "old" else None


def for_old_model(samples: AnySamples) -> AnySamples:
    """The same samples as the old model takes them: the same, but of vectors with inputs of their own for it."""
    if isinstance(samples, VectorSamples) and samples.old_inputs is not None:
        return replace(samples, vectors=samples.old_inputs, old_inputs=None)
    return samples


def _check(kind: str, count: int, samples: Samples) -> None:
    labels, names = samples.labels, samples.class_names
    if count != len(labels):
        raise DataError(f"{samples.origin}: {count} {kind}s but {len(labels)} labels")
    if not len(labels):
        raise DataError(f"{samples.origin}: no {kind}s in it")
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(outside):
        raise DataError(
            f"{samples.origin}: label {labels[outside[0]]} of {kind} {outside[0]} is outside the range "
            f"0…{len(names) - 1} of its {len(names)} classes"
        )


def _require(kind: Modality, modality: Modality, origin: str) -> None:
    if kind != modality:
        raise DataError(f"{origin}: holds {kind}s, but the model embeds {modality}s")


def _array_digest(array: Array) -> str:
    head = f"{array.dtype} {list(array.shape)}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _list_digest(items: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(items).encode()).hexdigest()
