"""What a scenario refuses before any of its runs trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")
from nobackfill.config.data import PairData
from nobackfill.errors import ConfigError
from nobackfill.experiments import runs
from nobackfill.experiments.config import ScenarioConfig, load_scenario
from nobackfill.experiments.runs import changed_configs, try_runs

pytestmark = pytest.mark.train
DIGITS = {"data": {"name": "digits", "image_size": 8}, "model": {"backbone": "smallnet8", "embedding_dim": 8}}


def scenario(folder: Path, **bct: Any) -> ScenarioConfig:
    for name, method in (("plain", {"method": "independent"}), ("bct", {"method": "bct", "old": "old"})):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**method, **DIGITS}))
    later = {"independent": "plain.yaml", "bct": {"config": "bct.yaml", **bct}}
    path = folder / "scenario.yaml"
    generations = {"old": {"independent": "plain.yaml"}, "new": later}
    path.write_text(yaml.safe_dump({"generations": generations}, sort_keys=False))
    return load_scenario(path)


@pytest.mark.parametrize(
    ("bct", "message"),
    [
        ({"set": ["model.backbone=nonsense"]}, "^new/bct: model.backbone: unknown name 'nonsense'"),
        (
            {"set": ["freeze=stages<9"]},
            "^new/bct: key 'freeze': 'stages<9', but 'smallnet8' starts from random weights",
        ),
        (
            {"set": ["freeze=stages<9"], "start": "old"},
            "^new/bct: key 'freeze': 'stages<9': .* at most stages<4 can freeze",
        ),
        ({"set": ["accumulate=3"]}, "^new/bct: key 'batch_size': 128 does not divide into 3 micro-batches"),
        ({"set": ["model.pretrained=true"]}, "^new/bct: model.pretrained: 'smallnet8' has no published weights"),
        (
            {"set": ["model.backbone=quicknet8", "data.image_size=32", "data.augment.small_size=4"]},
            "^new/bct: key 'model.backbone': 'quicknet8' does not take images of 4×4",
        ),
        (
            {"set": ["model.backbone=smallnet9"], "start": "old"},
            "^new/bct: key 'init_from': old has the backbone 'smallnet8', this run 'smallnet9'",
        ),
        ({"set": ["model.old_dim=9"]}, "^new/bct: key 'model.old_dim': 9, but old/independent has an embedding of 8"),
        (
            {"set": ["method=bt2", "model.embedding_dim=16", "model.extra_dim=2"]},
            "^new/bct: key 'model.embedding_dim': 16, but new/independent has an embedding of 8",
        ),
    ],
)
def test_what_would_end_a_run_is_found_before_the_first(tmp_path: Path, bct: dict[str, Any], message: str) -> None:
    try_runs(scenario(tmp_path, start="independent"))
    found = scenario(tmp_path, **bct)
    with pytest.raises(ConfigError, match=message):
        try_runs(found)


def test_no_run_may_train_on_what_is_searched(tmp_path: Path) -> None:
    """Held out from one run alone, images would be in the test set and in the training set of the others."""
    held = scenario(tmp_path, set=["data.holdout=300"])
    with pytest.raises(ConfigError, match="^new/bct: key 'data.holdout': 300, but null in new/independent, whose test"):
        changed_configs(held)
    assert changed_configs(held.with_changes(["data.holdout=300", "data.train_limit=500"]))
    with pytest.raises(ConfigError, match=r"^new/bct: key 'data.name': cifar100, but digits in new/independent"):
        changed_configs(
            scenario(tmp_path, set=["data={name: cifar100, root: x, holdout: 9}"]).with_changes(["data.holdout=9"])
        )


@pytest.mark.parametrize("key", ["id", "query", "positive", "train"])
def test_pairs_are_held_out_by_the_same_columns_of_the_same_file(key: str) -> None:
    searched = PairData(train=Path("pairs.csv"), holdout=60)
    runs._check_split(searched, "new", searched)
    with pytest.raises(ConfigError, match=f"key 'data.{key}': .*this run could train on it"):
        runs._check_split(searched.model_copy(update={key: "other"}), "new", searched)


def started(folder: Path, backbone: str) -> str:
    """A run folder whose spec says that it has this backbone."""
    architecture = {"backbone": backbone, "head": "plain", "head_options": {"dim": 8, "classes": 10, "old_dim": 0}}
    preprocessing = {"image_size": 8}
    spec = {"generation": "x", "dim": 8, "norm": 1.0, "fingerprint": "x", "architecture": architecture}
    (folder / backbone).mkdir(exist_ok=True)
    (folder / backbone / "embedding.json").write_text(json.dumps({**spec, "preprocessing": preprocessing}))
    (folder / backbone / "model.safetensors").touch()
    return str(folder / backbone)


def test_a_run_that_starts_from_a_folder_is_compared_with_that(tmp_path: Path) -> None:
    """The scenario's own models may have other backbones."""
    narrow = ["model.backbone=smallnet9", f"init_from={started(tmp_path, 'smallnet9')}"]
    try_runs(scenario(tmp_path, set=narrow), folders=True)
    wide = scenario(tmp_path, set=[f"init_from={started(tmp_path, 'smallnet9')}"])
    with pytest.raises(
        ConfigError, match="^new/bct: key 'init_from': .*smallnet9 has the backbone 'smallnet9', this r"
    ):
        try_runs(wide)
    gone = scenario(tmp_path, set=[f"init_from={tmp_path / 'gone'}"])
    try_runs(gone)  # `check` does without run folders
    with pytest.raises(ConfigError, match="^new/bct: key 'init_from': .*gone: no such run folder; train it first"):
        try_runs(gone, folders=True)


@pytest.mark.parametrize("start", ["old", "independent"])
def test_a_run_starts_from_one_model(tmp_path: Path, start: str) -> None:
    found = scenario(tmp_path, set=["init_from=somewhere"], start=start)
    with pytest.raises(
        ConfigError, match=rf"^new/bct: key 'init_from': somewhere, .* \(start: {start}\); leave one of"
    ):
        changed_configs(found)


def test_the_upper_bound_has_no_old_model(tmp_path: Path) -> None:
    scenario(tmp_path)
    path = tmp_path / "scenario.yaml"
    path.write_text(path.read_text().replace("new:\n    independent: plain.yaml", "new:\n    independent: bct.yaml"))
    with pytest.raises(
        ConfigError, match="^new/independent: key 'method': 'bct' needs an old model, but the run 'indep"
    ):
        changed_configs(load_scenario(path))
    simplex = scenario(tmp_path)
    simplex.generations["new"]["independent"].set.extend(["method=dsimplex", "model.embedding_dim=9"])
    assert changed_configs(simplex)["new/independent"].method == "dsimplex"
