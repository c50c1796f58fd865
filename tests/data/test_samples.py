from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nobackfill.config import DigitsData, FolderData, VectorData, parse_data
from nobackfill.data import ImageSamples, Samples, TextSamples, VectorSamples, choose_classes, load_split, summarise
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


@pytest.mark.train
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


@pytest.mark.train
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
    with pytest.raises(DataError, match="data.holdout: 5000 must be less than the 1198 training samples"):
        load_split(DigitsData(holdout=5000), "train")


def test_a_missing_or_superfluous_root_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown key 'data.root'"):
        parse_data({"name": "digits", "root": "x"})
    with pytest.raises(ConfigError, match="missing key 'data.root'"):
        parse_data({"name": "cifar100"})


def of_each_kind() -> dict[str, Samples]:
    labels, names = np.array([0, 1, 0]), ("a", "b")
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    return {
        "image": ImageSamples(IMAGES, labels, names, "set", captions=("x", "y", "z")),
        "text": TextSamples(("x", "y", "z"), labels, names, "set"),
        "vector": VectorSamples(vectors, labels, names, "set", old_vectors=vectors[:, :1]),
    }


@pytest.mark.parametrize("kind", ["image", "text", "vector"])
def test_every_kind_of_sample_does_what_training_needs(kind: Any) -> None:
    samples = of_each_kind()[kind]
    assert list(samples.ids) == ["0", "1", "2"]
    some = samples.take(np.array([2, 0]))
    assert (len(some), some.labels.tolist(), some.class_names) == (2, [0, 0], ("a", "b"))
    inputs, whole = np.asarray(some.inputs(kind)), np.asarray(samples.inputs(kind))
    np.testing.assert_array_equal(inputs, whole[[2, 0]])
    assert samples.digest(kind) == of_each_kind()[kind].digest(kind) != some.digest(kind)
    for modality in {"image", "text", "vector"} - {kind, "text"}:
        with pytest.raises(DataError, match=f"set: holds {kind}s, but the model embeds {modality}s"):
            samples.inputs(modality)  # type: ignore[arg-type]
    assert (samples.vectors_of("old") is not None) == (kind == "vector")
    assert samples.vectors_of("independent") is None


def test_captions_are_the_texts_of_images() -> None:
    images, texts = of_each_kind()["image"].take(np.array([1])), of_each_kind()["text"].take(np.array([1]))
    assert images.inputs("text") == texts.inputs("text") == ("y",)
    assert images.digest("text") == texts.digest("text")
    with pytest.raises(DataError, match="a text model needs a caption for each image"):
        labelled(0, 1).inputs("text")


def test_old_vectors_follow_their_items() -> None:
    old = of_each_kind()["vector"].take(np.array([2, 1])).vectors_of("old")
    assert old is not None
    assert old.tolist() == [[4.0], [2.0]]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "digit"}, "key 'data.name': input should be one of 'digits', .*'vectors', .*found 'digit'"),
        ({}, "missing key 'data.name'"),
        ({"name": "digits", "labels": "y.npy"}, "unknown key 'data.labels': known: augment, classes"),
        ({"name": "digits", "captions": "c.json"}, "unknown key 'data.captions'"),
        ({"name": "vectors", "vectors": "x", "old_vectors": "y", "image_size": 8}, "unknown key 'data.image_size'"),
        ({"name": "vectors", "labels": "y"}, "missing key 'data.vectors'"),
        ({"name": "folder", "root": "x", "augment": {"flp": 1}}, "unknown key 'data.augment.flp': did you mean 'flip'"),
    ],
)
def test_each_kind_has_its_own_keys(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_data(section)


def test_what_is_known_before_anything_is_read(tmp_path: Path) -> None:
    images = summarise(DigitsData(image_size=16))
    assert images.preprocessing is not None
    assert (images.count, images.classes, images.preprocessing.input_shape) == (1198, 10, (3, 16, 16))
    assert summarise(FolderData(root=tmp_path / "gone")).count is None
    for name, columns in (("new", 5), ("old", 3)):
        np.save(tmp_path / f"{name}.npy", np.ones((20, columns), np.float32))
    np.save(tmp_path / "labels.npy", np.arange(20) % 4)
    np.save(tmp_path / "rows.npy", np.arange(7))
    files = {"vectors": "new", "old_vectors": "old", "labels": "labels", "rows": "rows"}
    paths = {key: tmp_path / f"{name}.npy" for key, name in files.items()}
    vectors = summarise(VectorData.model_validate(paths))
    assert vectors.preprocessing is not None
    assert (vectors.count, vectors.classes, vectors.preprocessing.input_shape) == (7, 4, (5,))
    assert vectors.old_space == ("old", 3, None)


def test_classes_of_vectors_are_called_as_their_labels(tmp_path: Path) -> None:
    for name, array in {"v": np.eye(4, dtype=np.float32), "l": np.array([30, 10, 20, 10])}.items():
        np.save(tmp_path / f"{name}.npy", array)
    samples = load_split(VectorData(vectors=tmp_path / "v.npy", labels=tmp_path / "l.npy"), "train")
    assert [samples.class_names[label] for label in samples.labels] == ["30", "10", "20", "10"]
