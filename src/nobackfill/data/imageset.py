"""The one form in which every data set arrives: images, labels, names of the classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nobackfill.cache import file_marks
from nobackfill.config import DataConfig
from nobackfill.errors import DataError

Images = NDArray[Any] | Sequence[str | Path | Image.Image]
"""uint8 [n, height, width, 3], or image files (or opened images) of any size; or vectors of another model, [n, dim]."""
Modality = Literal["image", "text", "vector"]


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Attributes:
        images: uint8 array [n, height, width, 3], or a sequence of n image files.
        labels: int64 [n], each a position in `class_names`.
        class_names: names of all classes.
        origin: what the set was read from, for messages.
        skipped: a line for each image that was left out because it does not decode.
        captions: a text for each image, where `data.captions` names them.
        given: floats [n, d_o], vectors of the old model, where they come with the set and are not computed.
    """

    images: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    origin: str
    skipped: tuple[str, ...] = ()
    captions: tuple[str, ...] | None = None
    given: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(f"{self.origin}: {len(self.images)} images but {len(self.labels)} labels")
        if not len(self.labels):
            raise DataError(f"{self.origin}: no images in it")
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if len(outside):
            raise DataError(
                f"{self.origin}: label {self.labels[outside[0]]} of image {outside[0]} is outside the range "
                f"0…{len(self.class_names) - 1} of its {len(self.class_names)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> ImageSet:
        """The images at these positions, in this order."""
        images = self.images[index] if isinstance(self.images, np.ndarray) else [self.images[i] for i in index]
        captions = None if self.captions is None else tuple(self.captions[i] for i in index)
        given = None if self.given is None else self.given[index]
        return replace(self, images=images, labels=self.labels[index], captions=captions, given=given)

    @property
    def vectors(self) -> bool:
        """Whether the samples are vectors, not images."""
        return isinstance(self.images, np.ndarray) and self.images.ndim == 2

    def samples(self, modality: Modality) -> Images | Sequence[str]:
        """What an encoder of this modality takes: the images (or vectors), or their captions.

        Raises:
            DataError: if the set has nothing of this kind.
        """
        if modality != "text":
            if self.vectors != (modality == "vector"):
                kind = "vectors" if self.vectors else "images"
                raise DataError(f"{self.origin}: holds {kind}, but the model takes {modality}s")
            return self.images
        if self.captions is None:
            raise DataError(
                f"{self.origin}: a text model needs a caption for each image; name their file in data.captions"
            )
        return self.captions

    def mark(self, modality: Modality) -> str:
        """SHA-256 of what an encoder of this modality would be given; of files their path, size and time of change."""
        samples = self.samples(modality)
        if isinstance(samples, np.ndarray):
            head = f"{samples.dtype} {list(samples.shape)}".encode()
            return hashlib.sha256(head + np.ascontiguousarray(samples).tobytes()).hexdigest()
        listed = list(samples) if modality == "text" else file_marks([Path(str(path)) for path in samples])
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def choose_classes(data: DataConfig, count: int) -> NDArray[np.int64]:
    """Class numbers that training may see, ascending (int64), of a data set with `count` classes.

    Raises:
        DataError: if `data.classes` asks for classes the data set does not have.
    """
    wanted = data.classes
    if wanted is None:
        return np.arange(count)
    if wanted == "first-half":
        return np.arange(count // 2)
    chosen = np.arange(wanted) if isinstance(wanted, int) else np.unique(np.asarray(wanted, dtype=np.int64))
    if not len(chosen) or chosen[-1] >= count:
        raise DataError(f"data.classes: {wanted!r} asks for classes outside the range 0…{count - 1} of {data.name!r}")
    return chosen
