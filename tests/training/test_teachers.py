from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tests.conftest import tiny_config

from nobackfill.data import load_split
from nobackfill.models import load
from nobackfill.training.setup import prepare, resolve
from nobackfill.training.teachers import class_means, teacher_vectors


def test_class_means__equal_a_loop_and_are_not_renormalised() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(50, 4))
    labels = torch.randint(0, 5, (50,))
    means = class_means(vectors, labels, 6)
    for c in range(5):
        own = [vector for vector, label in zip(vectors, labels, strict=True) if label == c]
        torch.testing.assert_close(means[c], sum(own, torch.zeros(4)) / len(own))
    assert torch.equal(means[5], torch.zeros(4))
    assert means.norm(dim=1).max() < 1


def test_teachers_see_the_evaluation_view_and_are_unit_vectors(runs: dict[str, Path]) -> None:
    images = load_split(tiny_config("independent").data, "train").take(np.arange(20))
    bt2 = load(runs["bt2"])
    raw = bt2.encode(images.images)
    vectors = teacher_vectors(bt2, images, workers=0)
    assert np.linalg.norm(raw[0]) > 2  # √(1 + C²)
    np.testing.assert_allclose(vectors.numpy(), raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_each_method_gets_the_teachers_it_names_in_the_order_of_the_images(runs: dict[str, Path]) -> None:
    device = torch.device("cpu")
    old, new = str(runs["old"]), str(runs["new"])
    bct = prepare(resolve(tiny_config("bct", old=old)), device).teachers
    assert (bct.old, bct.independent) == (None, None)
    assert bct.prototypes is not None
    assert bct.prototypes.shape == (10, 4)  # also for the classes that the old model never saw
    bt2 = prepare(resolve(tiny_config("bt2", old=old, independent=new, model__extra_dim=2)), device)
    assert bt2.teachers.old is not None
    assert bt2.teachers.independent is not None
    positions = torch.tensor([3, 0, 17])
    batch = bt2.teachers.batch(positions, device)
    chosen = bt2.images.take(positions.numpy())
    assert batch.old is not None
    assert batch.independent is not None
    np.testing.assert_allclose(batch.old.numpy(), load(runs["old"]).encode(chosen.images), atol=1e-6)
    np.testing.assert_allclose(batch.independent.numpy(), load(runs["new"]).encode(chosen.images), atol=1e-6)
    assert batch.labels.tolist() == chosen.labels.tolist()


def test_training_on_some_classes_numbers_them_anew() -> None:
    config = resolve(tiny_config("independent", data__classes=[3, 7, 8], data__train_limit=None))
    setup = prepare(config, torch.device("cpu"))
    assert set(setup.images.labels) == {3, 7, 8}
    assert (torch.tensor([3, 7, 8])[setup.teachers.labels] == torch.from_numpy(setup.images.labels)).all()
    assert setup.network.head.options["classes"] == 3


def test_train_limit_is_the_same_images_for_old_and_new() -> None:
    device = torch.device("cpu")
    new = prepare(resolve(tiny_config("independent")), device).images
    old = prepare(resolve(tiny_config("independent", data__classes="first-half", seed=5)), device).images
    assert len(new) == 200
    assert isinstance(new.images, np.ndarray)
    assert isinstance(old.images, np.ndarray)
    np.testing.assert_array_equal(old.images, new.images[new.labels < 5])
