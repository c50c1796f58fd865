"""`vectors/relu+H` and `vectors/slerp`: descriptions that do not hold together are refused, by NumPy and by PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.errors import ConfigError, RunError
from nobackfill.models.array_encoder import shapes_of
from nobackfill.models.spec import Architecture, EmbeddingSpec

GOOD = {
    "relu": ("vectors/relu+4", {"in_features": 6}),
    "relu of two vectors": ("vectors/relu+4", {"in_features": 6, "first": 2}),
    "slerp": ("vectors/slerp", {"in_features": 6, "first": 3, "alpha": 0.5}),
}
BAD = {
    "no hidden layer": ("vectors/relu", {"in_features": 6}),
    "a slerp with a net": ("vectors/slerp+4", {"in_features": 6, "first": 3, "alpha": 0.5}),
    "no second vector": ("vectors/relu+4", {"in_features": 6, "first": 6}),
    "a size below zero": ("vectors/relu+4", {"in_features": 6, "first": -1}),
    "another old size": ("vectors/slerp", {"in_features": 6, "first": 2, "alpha": 0.5}),
    "no alpha": ("vectors/slerp", {"in_features": 6, "first": 3}),
    "words for alpha": ("vectors/slerp", {"in_features": 6, "first": 3, "alpha": "half"}),
    "alpha of a net": ("vectors/relu+4", {"in_features": 6, "alpha": 0.5}),
    "a linear map of two vectors": ("vectors/linear", {"in_features": 6, "first": 2}),
}


def spec(backbone: str, options: dict[str, int | float | str]) -> EmbeddingSpec:
    architecture = Architecture(backbone=backbone, backbone_options=options, head="unit", head_options={"dim": 3})
    preprocessing = VectorPreprocessing(input_dim=6)
    return EmbeddingSpec(
        generation="x-0", dim=3, norm=1.0, fingerprint="0", architecture=architecture, preprocessing=preprocessing
    )


@pytest.mark.parametrize("name", BAD)
def test_damaged_descriptions(name: str) -> None:
    with pytest.raises(RunError, match=r"generation x-0: damaged"):
        shapes_of(spec(*BAD[name]))  # type: ignore[arg-type]


@pytest.mark.train
@pytest.mark.parametrize("name", BAD)
def test_damaged_descriptions_in_pytorch(name: str) -> None:
    from nobackfill.models.network import build_network

    with pytest.raises(ConfigError, match="backbone 'vectors/"):
        build_network(spec(*BAD[name]).architecture)  # type: ignore[arg-type]


@pytest.mark.train
@pytest.mark.parametrize("name", GOOD)
def test_numpy_and_pytorch_have_the_same_weights(name: str) -> None:
    from nobackfill.models.network import build_network

    one = spec(*GOOD[name])  # type: ignore[arg-type]
    state = build_network(one.architecture).state_dict()
    assert {key: tuple(each.shape) for key, each in state.items()} == shapes_of(one)
    assert all(each.numpy().dtype == np.float32 for each in state.values())


@pytest.mark.train
def test_a_forged_width_takes_no_memory() -> None:
    from nobackfill.models.network import build_network

    with pytest.raises(ConfigError, match="its sizes do not fit"):
        build_network(spec("vectors/relu+99999", {"in_features": 6}).architecture)
