from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nobackfill.config import DigitsData, parse_data
from nobackfill.data import ImageSamples, Samples, choose_classes, load_split
from nobackfill.errors import ConfigError, DataError

IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


def labelled(*labels: int) -> ImageSamples:
    return ImageSamples(IMAGES[: len(labels)], np.array(labels), ("a", "b"), "set")


def test_labels_outside_the_range_are_named() -> None:
    with pytest.raises(DataError, match=r"set: label 2 of image 1 is outside the range 0…1 of its 2 classes"):
        labelled(0, 2, 1)
    with pytest.raises(DataError, match=r"label -1 of image 0"):
        labelled(-1)


def test_sets_that_are_empty_or_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        labelled()
    with pytest.raises(DataError, match="3 images but 1 labels"):
        ImageSamples(IMAGES, np.array([0]), ("a",), "set")


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(None, [0, 1, 2, 3, 4]), ("first-half", [0, 1]), (3, [0, 1, 2]), ([4, 1, 1], [1, 4])],
)
def test_choose_classes(classes: Any, expected: list[int]) -> None:
    assert choose_classes(DigitsData(classes=classes), 5).tolist() == expected


@pytest.mark.parametrize("classes", [6, [0, 5], []])
def test_choose_classes__outside_the_range(classes: Any) -> None:
    with pytest.raises(DataError, match=r"data.classes: .* outside the range 0…4"):
        choose_classes(DigitsData(classes=classes), 5)


def test_digits() -> None:
    config = DigitsData()
    train, test = load_split(config, "train"), load_split(config, "test")
    assert (len(train), len(test)) == (1198, 599)
    assert train.class_names == tuple("0123456789")
    assert isinstance(train, ImageSamples)
    assert isinstance(test, ImageSamples)
    assert isinstance(train.images, np.ndarray)
    assert isinstance(test.images, np.ndarray)
    assert train.images.shape[1:] == (8, 8, 3)
    assert (train.images.min(), train.images.max()) == (0, 255)
    for labels in (train.labels, test.labels):
        assert np.bincount(labels).min() >= len(labels) // 11
    assert load_split(config, "test").digest("image") == test.digest("image")


def test_a_holdout_takes_the_place_of_the_test_split() -> None:
    whole = load_split(DigitsData(), "train")
    data = DigitsData(holdout=200)
    train, test = load_split(data, "train"), load_split(data, "test")
    assert (len(train), len(test)) == (len(whole) - 200, 200)

    def rows(images: Samples) -> list[bytes]:
        assert isinstance(images, ImageSamples)
        return [np.asarray(image).tobytes() for image in images.images]

    assert sorted(rows(train) + rows(test)) == sorted(rows(whole))
    assert rows(load_split(data, "test")) == rows(test)  # the same ones every time
    with pytest.raises(DataError, match="data.holdout: 5000 leaves nothing of the 1198 training samples"):
        load_split(DigitsData(holdout=5000), "train")


def test_a_missing_or_superfluous_root_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown key 'data.root'"):
        parse_data({"name": "digits", "root": "x"})
    with pytest.raises(ConfigError, match="missing key 'data.root'"):
        parse_data({"name": "cifar100"})
