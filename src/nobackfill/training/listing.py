"""Which samples a run trains on, as a digest that another machine finds too."""

from __future__ import annotations

import hashlib
import os

import numpy as np
from numpy.typing import NDArray

from nobackfill.config import ImageData
from nobackfill.data import Samples, load_split, training_samples

NAMES = "labels and names"
"""Key of the digest in `data.json`."""


def listing_digest(samples: Samples, labels: NDArray[np.int64]) -> str:
    """Of the samples' labels, and of their names within what they were read from."""
    digest = hashlib.sha256(labels.astype(np.int64).tobytes())
    folder = f"{samples.origin}{os.sep}"
    digest.update("\n".join(name.removeprefix(folder) for name in samples.ids).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def present_listing(data: ImageData) -> str:
    """The digest of the images that are there now; decodes no file, so it counts those that do not decode."""
    listed = load_split(data.model_copy(update={"on_bad_image": "fail"}), "train")
    samples, labels, _ = training_samples(listed, data)
    return listing_digest(samples, labels)
