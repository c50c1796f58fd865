from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nobackfill.config import dump_config, load_config, parse_config, read_tree
from nobackfill.errors import ConfigError
from nobackfill.experiments.config import load_scenario

MINIMAL = {"method": "bt2", "data": {"name": "digits"}}
CONFIGS = Path(__file__).parents[1] / "configs"


def write(folder: Path, tree: object) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_reads_what_it_writes(tmp_path: Path) -> None:
    config = parse_config(
        {**MINIMAL, "old": "runs/old", "loss": {"old": 5}, "data": {"name": "digits", "classes": [1, 3]}}
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


@pytest.mark.train
@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_run_config_of_the_project_resolves_and_reads_back(path: Path, tmp_path: Path) -> None:
    from nobackfill.training import resolve

    if not {"query", "generations"} & set(read_tree(path)):
        config = resolve(load_config(path))
        assert config.loss
        (tmp_path / "again.yaml").write_text(dump_config(config))
        assert resolve(load_config(tmp_path / "again.yaml")) == config


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.lr=1e-4", "optimizer.lr", 1e-4),
        ("epochs=3", "epochs", 3),
        ("data.classes=[1, 2]", "data.classes", [1, 2]),
        ("data.classes=first-half", "data.classes", "first-half"),
        ("old=runs/a", "old", Path("runs/a")),
        ("loss.old=0", "loss.old", 0),
        ("old=null", "old", None),
    ],
)
def test_overrides(tmp_path: Path, override: str, key: str, value: object) -> None:
    found: object = load_config(write(tmp_path, MINIMAL), [override])
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.embeding_dim=3", r"unknown key 'model.embeding_dim': did you mean 'embedding_dim'\?"),
        ("methode=bct", r"unknown key 'methode': did you mean 'method'\?"),
        ("data.augment.flop=true", r"unknown key 'data.augment.flop': did you mean 'flip'\?"),
        ("model.xyz=3", "unknown key 'model.xyz': known: backbone, classifier_bias"),
        ("model.embedding_dim=1000000000", "key 'model.embedding_dim': .*less than or equal to 65536"),
        ("model.scale=1e200", "key 'model.scale': input should be less than or equal to 1000000, found '1e200'"),
        ("freeze=Backbone", r"key 'freeze': string should match pattern '.*\\d\{0,2\}.*', found 'Backbone'"),
        ("epochs=0", r"key 'epochs': .*greater than 0, found 0"),
        ("epochs=many", r"key 'epochs': .*integer.*found 'many'"),
        ("data.classes=all", r"key 'data.classes': .*found 'all'"),
        ("data.classes=[-1]", r"key 'data.classes"),
        ("optimizer.lr=.nan", "key 'optimizer.lr': .*finite"),
        ("schedule.name=step", r"key 'schedule.name': .*'linear' or 'one_cycle', found 'step'"),
        ("epochs", "expected key=value"),
        (".a=1", "expected key=value"),
        ("method.x=1", "'method' is a value, not a section"),
        ("epochs={", "not valid YAML"),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, MINIMAL), [override])
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.yaml: missing key 'data'"):
        load_config(write(tmp_path, {"method": "bt2"}))


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "", "\x00", "!!python/object/apply:os.system [echo]"])
def test_a_file_that_is_no_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="run.yaml: ") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: no such file"):
        load_config(tmp_path / "none.yaml")


def scenario(folder: Path, generations: object) -> Path:
    return write(folder, {"generations": generations})


def test_a_scenario_reads_its_paths_from_its_own_folder_independent_first(tmp_path: Path) -> None:
    later = {"bct": "bct.yaml", "independent": "new.yaml"}
    found = load_scenario(scenario(tmp_path, {"a": {"independent": "old.yaml"}, "b": later}), ["seeds=2"])
    assert found.seeds == 2
    expected = [("independent", tmp_path / "new.yaml"), ("bct", tmp_path / "bct.yaml")]
    assert [(name, run.config) for name, run in found.generations["b"].items()] == expected


@pytest.mark.train
def test_a_scenario_changes_the_settings_of_its_runs(tmp_path: Path) -> None:
    from nobackfill.experiments.runs import changed_configs

    write(tmp_path, {"method": "independent", "data": {"name": "digits"}})
    (tmp_path / "run.yaml").rename(tmp_path / "plain.yaml")
    varied = {"config": "plain.yaml", "set": ["epochs=3", "seed=4"]}
    path = write(tmp_path, {"generations": {"a": {"independent": "plain.yaml"}, "b": {"independent": varied}}})
    found = load_scenario(path, ["set=[epochs=7]"])
    changed = changed_configs(found)
    assert {name: config.epochs for name, config in changed.items()} == {"a/independent": 7, "b/independent": 7}
    assert changed_configs(load_scenario(path)).keys() == {"b/independent"}
    assert changed_configs(load_scenario(path))["b/independent"].epochs == 3
    refused = {
        "epoch=7": r"^a/independent: .*plain.yaml: unknown key 'epoch': did you mean 'epochs'",
        "model.extra_dim=3": "^a/independent: key 'model.extra_dim': method 'independent' does not use it",
    }
    for change, message in refused.items():
        with pytest.raises(ConfigError, match=message):
            changed_configs(found.model_copy(update={"set": [change]}))


@pytest.mark.parametrize(
    ("generations", "message"),
    [
        ({"a": {"independent": "x"}}, "run.yaml: expected at least two generations"),
        ({"a": {"bct": "x"}, "b": {"independent": "x"}}, "the first generation has one model, 'independent'"),
        ({"a": {"independent": "x"}, "b": {"bct": "x"}}, "generation 'b': expected 'independent'"),
        (
            {"a": {"independent": "x"}, "b": {"independent": "x", "bct": "x"}, "c": {"independent": "x"}},
            "generation 'c': expected 'independent' and the methods of the others",
        ),
        (
            {"../a": {"independent": "x"}, "b": {"independent": "x"}},
            r"key 'generations.../a.*: string should match pattern '\^\[A-Za-z0-9",
        ),
        ([], "key 'generations'"),
    ],
)
def test_a_scenario_that_cannot_run_is_named(tmp_path: Path, generations: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scenario(scenario(tmp_path, generations))
