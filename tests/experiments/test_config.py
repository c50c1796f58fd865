"""Scenario configs: numbers of seeds, and a choice of methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nobackfill.errors import ConfigError
from nobackfill.experiments.config import load_scenario, only_methods


def write(folder: Path, **methods: Any) -> Path:
    """A scenario of three generations with these methods in the last two."""
    later = {"independent": "new.yaml", **methods}
    tree = {"generations": {"a": {"independent": "old.yaml"}, "b": later, "c": later}, "seeds": 5}
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def test_a_method_may_have_fewer_seeds(tmp_path: Path) -> None:
    path = write(
        tmp_path, bct="bct.yaml", bt2={"config": "bt2.yaml", "seeds": 3}, more={"config": "x.yaml", "seeds": 9}
    )
    scenario = load_scenario(path)
    assert {name: scenario.seeds_of(name) for name in ("independent", "bct", "bt2", "more")} == {
        "independent": 5,
        "bct": 5,
        "bt2": 3,
        "more": 5,  # at most the scenario's
    }
    assert load_scenario(path, ["seeds=2"]).seeds_of("bt2") == 2


def test_numbers_of_seeds_that_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path, bt2={"config": "bt2.yaml", "seeds": 0})
    with pytest.raises(ConfigError, match="key 'generations.b.bt2.seeds'"):
        load_scenario(path)
    tree = yaml.safe_load(write(tmp_path, bt2="bt2.yaml").read_text())
    tree["generations"]["c"] = {"independent": "new.yaml", "bt2": {"config": "bt2.yaml", "seeds": 2}}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.raises(ConfigError, match="generation 'c': 'bt2': expected as many seeds as in the other generations"):
        load_scenario(path)
    tree["generations"]["a"]["independent"] = {"config": "old.yaml", "seeds": 2}
    tree["generations"]["c"] = tree["generations"]["b"]
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.raises(ConfigError, match="'independent': does not take 'seeds'"):
        load_scenario(path)


def test_only_some_methods_and_the_independent_one(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, bct="bct.yaml", bt2="bt2.yaml", concat="concat.yaml"))
    chosen = only_methods(scenario, ["concat", "bct"])
    kept = {name: list(methods) for name, methods in chosen.generations.items()}
    assert kept == {"a": ["independent"], "b": ["independent", "bct", "concat"], "c": ["independent", "bct", "concat"]}
    with pytest.raises(ConfigError, match="--methods: no method 'concatt' in this scenario: did you mean 'concat'"):
        only_methods(scenario, ["concatt"])
