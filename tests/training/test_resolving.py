"""Settings that nothing would look at are refused, in the configs of new runs only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import tiny_config

from nobackfill.config import dump_config, load_config
from nobackfill.errors import ConfigError, RunError
from nobackfill.training import resolve, train

BT2 = {"old": "old", "independent": "new"}
VECTORS = {"name": "vectors", "vectors": "new.npy", "old_vectors": "old.npy", "holdout": 9}
PAIRS = {"name": "pairs", "train": "pairs.jsonl", "test_fraction": 0.2}

UNUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a scale of no classifier": (
        "mlp",
        {"data": VECTORS, "model": {"backbone": "vectors/linear", "classifier_scale": 16}},
        "key 'model.classifier_scale': method 'mlp' trains no classifier on vectors; leave it out",
    ),
    "a bias of no classifier": (
        "bt2_vectors",
        {"data": VECTORS, "model": {"backbone": "vectors/keep", "classifier_bias": True}},
        "key 'model.classifier_bias': method 'bt2_vectors' trains no classifier on vectors; leave it out",
    ),
    "a classifier of pairs": (
        "bt2",
        {"data": PAIRS, "model": {"backbone": "static", "classifier_scale": 16}, **BT2},
        "key 'model.classifier_scale': method 'bt2' trains no classifier on pairs; leave it out",
    ),
    "a relu of no layer": (
        "bt2",
        {"model__extra_dim": 0, "model__rectify": False, **BT2},
        "key 'model.rectify': with model.extra_dim: 0 there is nothing to rectify; leave it out",
    ),
    "views for no teacher": (
        "bt2",
        {"teacher_view": "same", "loss": {"old": 0, "independent": 0}, "old": "old"},
        "key 'teacher_view': method 'bt2' does not use teachers' vectors with these weights in loss; leave it out",
    ),
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_nothing_looks_at_is_refused(name: str) -> None:
    method, changes, message = UNUSED[name]
    with pytest.raises(ConfigError) as caught:
        resolve(tiny_config(method, **changes))
    assert str(caught.value) == message


def test_the_defaults_that_runs_keep_are_not() -> None:
    for method, changes in (
        ("mlp", {"data": VECTORS, "model": {"backbone": "vectors/linear"}}),
        ("bt2", {"data": PAIRS, "model": {"backbone": "static"}, **BT2}),
        ("bt2", {"model__extra_dim": 0, **BT2}),
        ("bt2", {"teacher_view": "same", "loss": {"old": 0}, **BT2}),
    ):
        config = resolve(tiny_config(method, **changes))
        assert resolve(config) == config


@pytest.mark.parametrize(
    "model",
    [{"backbone": "smallnet8"}, {"backbone": "resnet18"}, {"backbone": "static"}],
    ids=lambda each: each["backbone"],
)
def test_random_weights_are_not_frozen(model: dict[str, Any]) -> None:
    data = {"name": "texts", "train": "texts.jsonl", "test_fraction": 0.2} if model["backbone"] == "static" else None
    changes: dict[str, Any] = {"model": model, "freeze": "backbone", **({"data": data} if data else {})}
    message = f"^key 'freeze': 'backbone', but '{model['backbone']}' starts from random weights"
    with pytest.raises(ConfigError, match=message):
        resolve(tiny_config("independent", **changes))
    assert resolve(tiny_config("independent", init_from="somewhere", **changes)).freeze


def test_published_weights_may_be_frozen() -> None:
    texts = {"name": "texts", "train": "texts.jsonl", "test_fraction": 0.2}
    assert resolve(tiny_config("independent", model={"backbone": "resnet18", "pretrained": True}, freeze="stages<2"))
    vit = {"backbone": "reference/vit_b16", "weights": "vit"}
    assert resolve(tiny_config("independent", model=vit, freeze="stages<2"))
    for backbone in ("static:folder", "sentence:folder"):
        assert resolve(tiny_config("independent", data=texts, model={"backbone": backbone}, freeze="backbone"))


def test_a_run_of_before_a_key_was_refused_is_compared_as_it_was_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("new", "old"):
        np.save(tmp_path / f"{name}.npy", random.normal(size=(60, 4)).astype(np.float32))
    data = {**VECTORS, "vectors": str(tmp_path / "new.npy"), "old_vectors": str(tmp_path / "old.npy")}
    model = {"backbone": "vectors/linear", "embedding_dim": 4}
    config = tiny_config("mlp", data=data, model=model, batch_size=16)
    run = train(config, tmp_path / "run")
    written = load_config(run / "config.yaml", ["model.classifier_scale=16"])
    (run / "config.yaml").write_text(dump_config(written))
    with pytest.raises(RunError, match=r"its config differs in 'model\.classifier_scale'"):
        train(config, run, resume=True)
