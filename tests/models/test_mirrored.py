"""Encoders that add the vector of the mirror image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import tiny_config
from torch.nn.functional import normalize

import nobackfill
from nobackfill.errors import ConfigError
from nobackfill.interop.graph import Graph, random_inputs
from nobackfill.models.encoder import Encoder
from nobackfill.training import train


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory, runs: dict[str, Path]) -> Encoder:
    config = tiny_config(
        "bt2", old=str(runs["old"]), independent=str(runs["new"]), model__extra_dim=2, data__mirror=True
    )
    return nobackfill.load(train(config, tmp_path_factory.mktemp("mirrored") / "run"), "cpu")


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_an_image_and_its_mirror_image_have_one_vector(mirrored: Encoder) -> None:
    images = pixels(6)
    vectors = mirrored.encode(images)
    np.testing.assert_allclose(vectors, mirrored.encode(images[:, :, ::-1].copy()), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), mirrored.spec.norm, rtol=1e-5)


def test_it_is_the_sum_of_both_views_at_the_norm(mirrored: Encoder) -> None:
    inputs = mirrored.spec.preprocessing.normalize(torch.from_numpy(pixels(4)).permute(0, 3, 1, 2))
    with torch.inference_mode():
        both = [mirrored.network(view)["embedding"] for view in (inputs, inputs.flip(-1))]
        expected = mirrored.spec.norm * normalize(both[0].double() + both[1].double())
        torch.testing.assert_close(mirrored(inputs).double(), expected, atol=1e-5, rtol=0)


def test_the_exported_graph_adds_it_too(mirrored: Encoder) -> None:
    inputs = random_inputs(mirrored, 3)
    with torch.inference_mode():
        torch.testing.assert_close(Graph(mirrored)(inputs), mirrored(inputs))


def test_teachers_and_metrics_use_the_encoder_s_own_vectors(mirrored: Encoder) -> None:
    assert mirrored.spec.preprocessing.mirror  # type: ignore[union-attr]
    plain = Encoder(
        mirrored.network,
        mirrored.spec.model_copy(
            update={"preprocessing": mirrored.spec.preprocessing.model_copy(update={"mirror": False})}
        ),
    )
    assert not np.allclose(plain.encode(pixels(4)), mirrored.encode(pixels(4)), atol=1e-3)


@pytest.mark.parametrize("key", ["mirror", "mean", "std"])
def test_vectors_have_no_mirror_image(key: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(4, dtype=np.float32))
    config = tiny_config("mlp").model_dump(mode="json")
    value = True if key == "mirror" else 0.5
    arrays = {name: str(tmp_path / "v.npy") for name in ("vectors", "old_vectors")}
    config["data"] = {"name": "vectors", key: value, **arrays}
    config["model"] = {"backbone": "vectors/linear", "embedding_dim": 4}
    with pytest.raises(ConfigError, match=f"unknown key 'data.{key}'"):
        nobackfill.config.parse_config(config)


def test_the_mean_and_deviation_of_a_config_are_part_of_the_encoder(tmp_path: Path) -> None:
    run = train(tiny_config("independent", data__mean=0.5, data__std=[0.5, 0.25, 1.0]), tmp_path / "run")
    preprocessing = nobackfill.load(run, "cpu").spec.preprocessing
    view = preprocessing.normalize(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
    assert view[0, :, 0, 0].tolist() == [1.0, 2.0, 0.5]
    with pytest.raises(ConfigError, match=r"'data.std': expected at least 0.001, found 0"):
        tiny_config("independent", data__std=0.0)
