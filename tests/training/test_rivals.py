"""Rival methods through the engine: images and vectors, own modules in checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tests.conftest import tiny_config
from tests.maps.pairs import items, write
from tests.training.test_resume import PowerError, stop_before

import nobackfill
from nobackfill.config import parse_config
from nobackfill.errors import ConfigError, DataError
from nobackfill.models.runfolder import load_spec
from nobackfill.training import checkpointer, train

RIVALS = ("lce", "ract", "unibct", "advbct", "mixbct", "oca", "dsimplex_hoc")


def size(method: str) -> int:
    """Of the embedding: a simplex needs a corner for each of the ten classes."""
    return 9 if method == "dsimplex_hoc" else 6


def config(method: str, runs: dict[str, Path], **changes: Any) -> Any:
    return tiny_config(method, old=str(runs["old"]), model__embedding_dim=size(method), **changes)


@pytest.mark.parametrize("method", RIVALS)
def test_on_images(method: str, runs: dict[str, Path], tmp_path: Path) -> None:
    run = train(config(method, runs, data__train_limit=130), tmp_path / "run")  # two steps
    encoder = nobackfill.load(run)
    assert encoder.spec.dim == size(method)
    assert [prefix.dim for prefix in encoder.spec.prefixes] == [4]
    assert all(name.startswith(("backbone.", "head.")) for name in load_file(run / "model.safetensors"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"self_test", "cross_test", "status_quo"} <= set(metrics)
    assert metrics["parameters"] == sum(value.numel() for value in load_file(run / "model.safetensors").values()) - sum(
        value.numel() for value in encoder.buffers()
    )


def on_vectors(folder: Path, method: str, **changes: Any) -> Any:
    old, new, labels = items(300)
    write(folder, old=old, new=new, labels=labels)
    files = {"vectors": str(folder / "new.npy"), "old_vectors": str(folder / "old.npy")}
    tree: dict[str, Any] = {
        "method": method,
        "data": {"name": "vectors", **files, "labels": str(folder / "labels.npy"), "holdout": 100, "old_name": "ada"},
        "model": {"backbone": "vectors/linear+8", "embedding_dim": old.shape[1] + 2},
        "epochs": 1,
        "batch_size": 64,
        "precision": "fp32",
    }
    tree["data"].update(changes)
    return parse_config(tree)


@pytest.mark.parametrize("method", [*RIVALS, "bct", "prefix"])
def test_on_vectors(method: str, tmp_path: Path) -> None:
    run = train(on_vectors(tmp_path, method), tmp_path / "run")
    made = nobackfill.load(run).encode(np.load(tmp_path / "new.npy"))
    assert np.isfinite(made).all()
    assert [prefix.fingerprint for prefix in load_spec(run).prefixes] == ["name:ada"]


@pytest.mark.parametrize("method", RIVALS)
def test_without_labels_it_is_refused_in_a_sentence(method: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"key 'method': '{method}' needs class labels; give data.labels, or choose"):
        train(on_vectors(tmp_path, method, labels=None), tmp_path / "run")


def test_one_class_only_is_refused_in_a_sentence(tmp_path: Path) -> None:
    settings = on_vectors(tmp_path, "ract")
    np.save(tmp_path / "labels.npy", np.zeros(300, np.int64))
    with pytest.raises(DataError, match=r"new\.npy: one class only, but method 'ract' tells classes apart"):
        train(settings, tmp_path / "run")
    with pytest.raises(DataError, match="one class only, but method 'independent' tells classes apart"):
        train(tiny_config("independent", data__classes=1), tmp_path / "digits")


def test_a_simplex_too_small_for_the_classes_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'model.embedding_dim': 6 values have 7 simplex corners, too few for 10"):
        train(tiny_config("dsimplex", model__embedding_dim=6), tmp_path / "run")
    first = train(tiny_config("dsimplex", model__embedding_dim=9), tmp_path / "first")
    again = tiny_config("dsimplex_hoc", old=str(first), model__embedding_dim=9)
    assert load_spec(train(again, tmp_path / "second")).prefixes[0].dim == 9


def test_the_students_view_serves_a_method_with_statistics(runs: dict[str, Path], tmp_path: Path) -> None:
    train(config("advbct", runs, teacher_view="same"), tmp_path / "run")
    with pytest.raises(ConfigError, match="'teacher_view': method 'lce' does not use teachers' vectors"):
        train(config("lce", runs, teacher_view="same"), tmp_path / "lce")


@pytest.mark.parametrize(("method", "changes"), [("advbct", {"average": 0.8}), ("oca", {"optimizer__name": "muon"})])
def test_own_modules_resume_to_the_byte(
    method: str, changes: dict[str, Any], runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "SECONDS", 0.0)
    monkeypatch.setattr(checkpointer, "FRACTION", math.inf)
    settings = config(method, runs, epochs=2, **changes)
    straight = train(settings, tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(PowerError):
            train(settings, tmp_path / "run")
    state = load_file(sorted((tmp_path / "run.unfinished" / "checkpoint").iterdir())[-1] / "state.safetensors")
    assert any(name.startswith("network.own.") for name in state)
    run = train(settings, tmp_path / "run", resume=True)
    assert (run / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    lines = [(path / "history.jsonl").read_text().splitlines()[-1] for path in (run, straight)]
    assert json.loads(lines[0])["loss"] == json.loads(lines[1])["loss"]
