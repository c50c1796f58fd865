"""Which samples of a data set are trained on and which are tested on."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nobackfill.config import DataSection
from nobackfill.data.samples import AnySamples
from nobackfill.errors import DataError

Split = Literal["train", "test"]


def kept_or_held_out(training: AnySamples, count: int | None, split: Split) -> AnySamples:
    """With `data.holdout`, the held-out training samples for the test split and the others for training.

    Args:
        training: all training samples; without a holdout those of `split`, which come back as they are.
        count: how many are held out, if any.
        split: which part is wanted.

    Raises:
        DataError: if nothing would be left to train on.
    """
    if count is None:
        return training
    return training.take(kept_or_held_out_places(len(training), count, split, training.origin))


def kept_or_held_out_places(training: int, count: int, split: Split, origin: str) -> NDArray[np.int64]:
    """Which of so many training samples are held out, or (split "train") kept; see `kept_or_held_out`."""
    if count >= training:
        raise DataError(f"data.holdout: {count} must be less than the {training} training samples of {origin}")
    order = np.random.default_rng(1).permutation(training)
    return np.sort(order[:count] if split == "test" else order[count:])


def choose_classes(data: DataSection, count: int) -> NDArray[np.int64]:
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
        raise DataError(f"data.classes: {wanted!r} has classes outside the range 0…{count - 1} of {data.name!r}")
    return chosen


def training_samples(samples: AnySamples, data: DataSection) -> tuple[AnySamples, NDArray[np.int64], int]:
    """The samples to train on, their classes among those trained on (int64 [n]), and how many of these there are."""
    classes = choose_classes(data, len(samples.class_names))
    chosen = np.arange(len(samples))
    if data.train_limit is not None:
        # The same samples for every run of an experiment, old or new, whatever its seed.
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[: data.train_limit])
    samples = samples.take(chosen[np.isin(samples.labels[chosen], classes)])
    return samples, np.searchsorted(classes, samples.labels), len(classes)
