"""Runs shared by the tests: four tiny models on the digits, trained once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from nobackfill.config import RunConfig, parse_config

MakeConfig = Callable[..., RunConfig]
# Milvus's connection reports its pings on stderr, in whatever test runs then.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
hypothesis.settings.register_profile("patient", deadline=None)  # machines are busy at times
hypothesis.settings.load_profile("patient")
TRAIN = all(find_spec(name) for name in ("torch", "torchvision", "timm", "accelerate", "sklearn"))
if not TRAIN:  # the base install: rooms and files whose every test needs the extra
    collect_ignore = ["interop", "methods", "training", "data/test_augment.py", "data/test_screening.py"]
    collect_ignore += ["experiments/test_cifar100_scenarios.py", "experiments/test_kinds.py"]
    models = (
        "backbones",
        "classifier",
        "clip",
        "convolution",
        "heads",
        "mirrored",
        "quicknet",
        "runfolder",
        "text_models",
        "vit",
    )
    collect_ignore += [f"models/test_{name}.py" for name in models]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the extra `train`, what it is needed for is skipped."""
    for item in items:
        if not TRAIN and item.get_closest_marker("train"):
            item.add_marker(pytest.mark.skip(reason="needs the extra train"))


def tiny_config(method: str, **changes: Any) -> RunConfig:
    """A run of seconds: digits at 8 px, a net of width 8, one epoch of 3 steps unless changed."""
    tree: dict[str, Any] = {
        "method": method,
        "data": {"name": "digits", "image_size": 8, "train_limit": 200, "augment": {"crop": "padded", "padding": 1}},
        "model": {"backbone": "smallnet8", "embedding_dim": 6},
        "schedule": {"warmup_epochs": 0},
        "epochs": 1,
        "batch_size": 64,
        "precision": "fp32",
    }
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return parse_config(tree)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's own cache is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("NOBACKFILL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of `old` (5 classes, 4 dims), `new`, `bct` and `bt2`."""
    if not TRAIN:
        pytest.skip("needs the extra train")
    from nobackfill.training import train

    root = tmp_path_factory.mktemp("runs")
    old, new = str(root / "old"), str(root / "new")
    configs = {
        "old": tiny_config("independent", data__classes="first-half", model__embedding_dim=4),
        "new": tiny_config("independent"),
        "bct": tiny_config("bct", old=old),
        "bt2": tiny_config("bt2", old=old, independent=new, model__extra_dim=2),
    }
    return {name: train(config, root / name) for name, config in configs.items()}
