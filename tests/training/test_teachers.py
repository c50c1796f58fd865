from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.conftest import tiny_config

from nobackfill import cache
from nobackfill.config import RunConfig
from nobackfill.data import ImageSamples, load_split
from nobackfill.errors import ConfigError
from nobackfill.models import load
from nobackfill.models.encoder import Encoder
from nobackfill.training.plan import make_plan
from nobackfill.training.setup import Setup
from nobackfill.training.setup import prepare as prepare_with
from nobackfill.training.teachers import class_means, teacher_vectors


def prepare(config: RunConfig) -> Setup:
    return prepare_with(make_plan(config), Accelerator())


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
    raw = bt2.encode_set(images)
    vectors = teacher_vectors(bt2, images, 0, Accelerator())
    assert vectors.dtype == torch.float16
    assert np.linalg.norm(raw[0]) > 2  # √(1 + C²)
    np.testing.assert_allclose(vectors.numpy(), raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=5e-4)


def test_each_method_gets_the_teachers_it_names_in_the_order_of_the_images(runs: dict[str, Path]) -> None:
    old, new = str(runs["old"]), str(runs["new"])
    bct = prepare(tiny_config("bct", old=old)).teachers
    assert (bct.vectors, bct.live) == ({}, {})
    assert bct.prototypes is not None
    assert bct.prototypes.shape == (10, 4)  # also for the classes that the old model never saw
    bt2 = prepare(tiny_config("bt2", old=old, independent=new, model__extra_dim=2))
    assert set(bt2.teachers.vectors) == {"old", "independent"}
    positions = torch.tensor([3, 0, 17])
    batch = bt2.teachers.batch(positions, torch.empty(3, 3, 8, 8, dtype=torch.uint8))
    chosen = bt2.samples.take(positions.numpy())
    assert batch.old is not None
    assert batch.independent is not None
    np.testing.assert_allclose(batch.old.numpy(), load(runs["old"]).encode_set(chosen), atol=5e-4)
    np.testing.assert_allclose(batch.independent.numpy(), load(runs["new"]).encode_set(chosen), atol=5e-4)
    assert batch.labels.tolist() == chosen.labels.tolist()


def test_training_on_some_classes_numbers_them_anew() -> None:
    setup = prepare(tiny_config("independent", data__classes=[3, 7, 8], data__train_limit=None))
    assert set(setup.samples.labels) == {3, 7, 8}
    assert (torch.tensor([3, 7, 8])[setup.teachers.labels] == torch.from_numpy(setup.samples.labels)).all()
    assert setup.network.head.options["classes"] == 3


def test_train_limit_is_the_same_images_for_old_and_new() -> None:
    new = prepare(tiny_config("independent")).samples
    old = prepare(tiny_config("independent", data__classes="first-half", seed=5)).samples
    assert len(new) == 200
    assert isinstance(new, ImageSamples)
    assert isinstance(old, ImageSamples)
    assert isinstance(new.images, np.ndarray)
    assert isinstance(old.images, np.ndarray)
    np.testing.assert_array_equal(old.images, new.images[new.labels < 5])


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOBACKFILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass over a data set has embedded."""
    counts: list[int] = []
    real = Encoder.encode_set

    def count(self: Encoder, images: object, *rest: int) -> object:
        counts.append(len(images))  # type: ignore[arg-type]
        return real(self, images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode_set", count)
    return counts


def test_one_pass_a_teacher_shared_between_runs_until_anything_changes(
    runs: dict[str, Path], empty_cache: Path, passes: list[int]
) -> None:
    old, new = str(runs["old"]), str(runs["new"])
    config = tiny_config("bt2", old=old, independent=new, model__extra_dim=2)
    first = prepare(config).teachers
    assert passes == [200, 200]
    again = prepare(config.model_copy(update={"seed": 3, "epochs": 7})).teachers
    assert passes == [200, 200]
    for name in first.vectors:
        assert torch.equal(first.vectors[name], again.vectors[name])
    assert torch.equal(first.prototypes, again.prototypes)  # type: ignore[arg-type]
    prepare(tiny_config("bct", old=old))
    assert passes == [200, 200]  # the same teacher, for another method
    prepare(tiny_config("bct", old=old, data__train_limit=100))
    assert passes[2:] == [100]  # other images
    prepare(tiny_config("bct", old=new))
    assert passes[2:] == [100]  # known from being the independent teacher above
    folders = [path for path in (empty_cache / "teachers").iterdir() if path.is_dir()]
    assert len(folders) == 3
    (folders[0] / "vectors.npy").write_bytes(b"damaged")
    prepare(config)
    prepare(tiny_config("bct", old=old, data__train_limit=100))
    assert len(passes) == 4  # built again
    assert all(np.load(folder / "vectors.npy").dtype == np.float16 for folder in folders)


def test_a_cache_is_built_once_by_two_at_a_time_and_never_seen_half(empty_cache: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    built = []

    def build() -> cache.Arrays:
        built.append(1)
        return {"a": np.arange(1000), "b": np.zeros((0, 3), np.float16)}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cache.cached("kind", {"x": 1}, build), range(16)))
    assert built == [1]
    assert all((each["a"] == np.arange(1000)).all() and each["b"].shape == (0, 3) for each in found)
    found[0]["a"][:] = 0  # in memory only
    assert cache.cached("kind", {"x": 1}, build)["a"][-1] == 999

    def fail() -> cache.Arrays:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.cached("kind", {"x": 2}, fail)
    assert not cache.is_cached("kind", {"x": 2})
    leftover = next((empty_cache / "kind").glob("*.lock")).with_suffix("")
    (leftover.parent / f".{leftover.name}.abc").mkdir()
    assert cache.is_cached("kind", {"x": 1})
    cache.cached("kind", {"x": 2}, build)
    assert cache.cached("kind", {"x": 2}, fail)["a"][1] == 1


def test_the_same_view__teachers_look_at_what_the_student_sees(runs: dict[str, Path]) -> None:
    from nobackfill.data.preprocessing import Preprocessing

    config = tiny_config(
        "bt2", old=str(runs["old"]), independent=str(runs["new"]), model__extra_dim=2, teacher_view="same"
    )
    teachers = prepare(config).teachers
    assert not teachers.vectors
    assert teachers.prototypes is not None
    assert torch.equal(teachers.prototypes, prepare(tiny_config("bct", old=str(runs["old"]))).teachers.prototypes)  # type: ignore[arg-type]
    views = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    batch = teachers.batch(torch.arange(5), views)
    for name, vectors in (("old", batch.old), ("new", batch.independent)):
        encoder = load(runs[name])
        with torch.no_grad():
            wanted = encoder(Preprocessing(image_size=8).normalize(views))
        assert vectors is not None
        assert not vectors.requires_grad
        torch.testing.assert_close(vectors, torch.nn.functional.normalize(wanted))
    with pytest.raises(ConfigError, match="'teacher_view': method 'bct' does not use teachers' vectors"):
        prepare(tiny_config("bct", old=str(runs["old"]), teacher_view="same"))
