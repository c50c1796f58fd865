"""Image files that do not decode: found before work begins, so that they can be left out and listed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from nobackfill.data.preprocessing import read_image
from nobackfill.data.samples import Images, ImageSamples
from nobackfill.errors import DataError
from nobackfill.progress import track


def leave_out_unreadable(images: ImageSamples, workers: int) -> ImageSamples:
    """The images that decode; the others are listed in `skipped`. Decodes every file once; arrays cost nothing.

    Raises:
        DataError: if none decodes.
    """
    if isinstance(images.images, np.ndarray):
        return images
    with ThreadPoolExecutor(max(1, workers)) as pool:
        positions = range(len(images))
        faults = list(track(pool.map(lambda i: _fault(images.images, i), positions), "checking images", len(images)))
    bad = tuple(fault for fault in faults if fault)
    if len(bad) == len(images):
        raise DataError(f"{images.origin}: none of its {len(bad)} images decode; the first: {bad[0]}")
    return replace(images.take(np.flatnonzero([fault is None for fault in faults])), skipped=bad)


def _fault(images: Images, position: int) -> str | None:
    try:
        read_image(images[position])
    except DataError as error:
        return str(error)
    return None
