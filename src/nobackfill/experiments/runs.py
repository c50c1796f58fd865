"""The runs of a scenario: their configs with changes and teachers, checked together before any of them trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from nobackfill.config import INDEPENDENT, DataConfig, RunConfig, VectorData, load_config
from nobackfill.data import choose_classes, summarise
from nobackfill.data.vectors import read_rows, split_rows
from nobackfill.errors import ConfigError, DataError, RunError
from nobackfill.experiments.config import ScenarioConfig
from nobackfill.models.runfolder import load_spec
from nobackfill.training.plan import plan_without_teachers
from nobackfill.training.resolving import method_of, resolve, teacher_keys
from nobackfill.training.setup import build_network, try_network
from nobackfill.training.start import require_same_backbone

SPLIT = ("holdout", "test_fraction", "test")
"""Keys of `data` that say what is not trained on."""
ORIGIN = ("name", "root", "train", "text", "query", "positive", "id")
"""Keys of `data` that say where all samples are, and which of them are held out together."""


def run_configs(scenario: ScenarioConfig) -> dict[str, dict[str, RunConfig]]:
    """By generation and method, the config of each run as its file and its changes have it.

    Raises:
        ConfigError: naming the run, also for one whose test split is not the one that is searched.
    """
    configs: dict[str, dict[str, RunConfig]] = {}
    before: dict[str, RunConfig] = {}  # by method, the run of the older generation
    for generation, methods in scenario.generations.items():
        loaded = {}
        for method, run in methods.items():
            with naming_run(generation, method):
                config = load_config(run.config, [*run.set, *scenario.set])
                _check_start(config, run.start, independent=method == INDEPENDENT)
                loaded[method] = _with_old_inputs(config, before[method]) if before else config
        configs[generation] = loaded
        before = loaded if before else dict.fromkeys(list(scenario.generations.values())[-1], loaded[INDEPENDENT])
    newest = list(configs)[-1]
    for generation, runs in configs.items():
        for method, config in runs.items():
            with naming_run(generation, method):
                _check_split(config.data, newest, configs[newest][INDEPENDENT].data)
    return configs


def changed_configs(scenario: ScenarioConfig) -> dict[str, RunConfig]:
    """`generation/method` → config of the runs that change their file's settings; the teachers are placeholders.

    Raises:
        ConfigError: for anything wrong with any run of the scenario.
    """
    return _changed(scenario, _runs(scenario))


def try_runs(scenario: ScenarioConfig, *, folders: bool = False) -> dict[str, RunConfig]:
    """Build and try every network that is unlike those before it; a text model only once training has its texts.

    Args:
        scenario: of these runs.
        folders: whether the run folders that configs start from by themselves (`init_from`) have to be there.

    Returns:
        The changed configs, as `changed_configs` does.

    Raises:
        ConfigError: naming the run.
    """
    runs, tried = _runs(scenario), set()
    for (generation, method), config in runs.items():
        with naming_run(generation, method):
            start = scenario.generations[generation][method].start
            if start is not None:
                of_old = model_before(scenario, generation, method)
                source = of_old if start == "old" else (generation, INDEPENDENT)
                require_same_backbone(Path(start), runs[source].model.backbone, config.model.backbone)
            elif config.init_from is not None and (folders or config.init_from.is_dir()):
                require_same_backbone(config.init_from, _backbone_of(config.init_from), config.model.backbone)
            told_apart = repr((config.method, config.data, config.model, config.freeze, config.optimizer))
            if config.data.modality == "text" or told_apart in tried:
                continue
            plan = plan_without_teachers(config)
            with torch.random.fork_rng(devices=[]):
                try_network(plan, build_network(plan, classes=2, weights=False))
            tried.add(told_apart)
    return _changed(scenario, runs)


def model_of(scenario: ScenarioConfig, generation: str, method: str) -> tuple[str, str]:
    """Generation and method of the run that is a method's model there: all share the first generation's."""
    return generation, INDEPENDENT if generation == next(iter(scenario.generations)) else method


def model_before(scenario: ScenarioConfig, generation: str, method: str) -> tuple[str, str]:
    """As `model_of`, of the generation before: the old model of a run."""
    names = list(scenario.generations)
    return model_of(scenario, names[names.index(generation) - 1], method)


def placed_config(config: RunConfig, start: str | None, old: Path, independent: Path, seed: int) -> RunConfig:
    """A run's config with its seed, and the run folders of its teachers and of the model it starts from."""
    places = {"old": old, INDEPENDENT: independent}
    needed = teacher_keys(method_of(config))
    given: dict[str, Path | None] = {key: places[key] if needed[key] else None for key in needed}
    if start is not None:
        given["init_from"] = places[start]
    return config.model_copy(update={"seed": seed, **given})


@contextmanager
def naming_run(generation: str, method: str) -> Iterator[None]:
    """Errors of a config name its run: a change that fits one run may not fit another."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{generation}/{method}: {error}") from error


def _runs(scenario: ScenarioConfig) -> dict[tuple[str, str], RunConfig]:
    """(generation, method) → config of each run, told how large the old embedding is; the teachers are placeholders."""
    runs, configs = {}, run_configs(scenario)
    sizes = _sizes(scenario, configs)
    for generation, methods in configs.items():
        for method, config in methods.items():
            start = scenario.generations[generation][method].start
            placed = placed_config(config, start, Path("old"), Path("independent"), 0)
            needed, before = teacher_keys(method_of(config)), model_before(scenario, generation, method)
            with naming_run(generation, method):
                if needed["independent"]:
                    _check_size("model.embedding_dim", config.model.embedding_dim, (generation, INDEPENDENT), sizes)
                if needed["old"] and before in sizes:
                    _check_size("model.old_dim", config.model.old_dim, before, sizes)
                    model = placed.model.model_copy(update={"old_dim": sizes[before]})
                    placed = placed.model_copy(update={"model": model})
                resolve(placed)
            runs[generation, method] = placed
    return runs


def _changed(scenario: ScenarioConfig, runs: Mapping[tuple[str, str], RunConfig]) -> dict[str, RunConfig]:
    return {
        f"{generation}/{method}": config
        for (generation, method), config in runs.items()
        if scenario.set or scenario.generations[generation][method].set
    }


def _check_start(config: RunConfig, start: str | None, *, independent: bool) -> None:
    """Raise `ConfigError` for an upper bound that is none, and for a run that is to start from two models."""
    if independent and teacher_keys(method_of(config))["old"]:
        raise ConfigError(
            f"key 'method': {config.method!r} needs an old model, but the run {INDEPENDENT!r} is the upper bound, "
            f"trained without one; expected a method such as {INDEPENDENT!r}"
        )
    if start is not None and config.init_from is not None:
        raise ConfigError(
            f"key 'init_from': {config.init_from}, but the scenario starts this run from another model "
            f"(start: {start}); leave one of the two out"
        )


def _backbone_of(run: Path) -> str:
    try:
        return load_spec(run).architecture.backbone
    except RunError as error:
        raise ConfigError(f"key 'init_from': {error}") from error


def _check_split(data: DataConfig, newest: str, searched: DataConfig) -> None:
    """Raise `ConfigError` for a run that may train on what is searched: the newest generation's test split.

    Test rows of vectors are compared where they are read.
    """
    if data.kind == "vector" or searched.kind == "vector":
        return
    # What is held out at random follows from the training samples, so these have to be the same as well.
    for key in (*SPLIT, *(ORIGIN if searched.holdout or getattr(searched, "test_fraction", None) else ())):
        own, other = (getattr(each, key, None) for each in (data, searched))
        if own != other:
            own, other = ("null" if value is None else value for value in (own, other))
            raise ConfigError(
                f"key 'data.{key}': {own}, but {other} in {newest}/{INDEPENDENT}, whose test split is searched: this "
                "run could train on it; set it alike in every run"
            )


def _with_old_inputs(config: RunConfig, older: RunConfig) -> RunConfig:
    """A run on vectors told what the older generation takes of the same items.

    Raises:
        ConfigError: if it says something else, or has other test rows.
    """
    data, before = config.data, older.data
    if not isinstance(data, VectorData) or not isinstance(before, VectorData):
        return config
    rows = [split_rows(each, "test", len(read_rows(each.vectors))) for each in (data, before)]
    if not np.array_equal(np.asarray(rows[0]), np.asarray(rows[1])):
        raise ConfigError(
            "its test rows are not those of the older generation; expected the same data.test_rows, data.rows and "
            "data.holdout in every run"
        )
    if data.old_vectors is not None or not teacher_keys(method_of(config))["old"]:
        return config
    if data.old_inputs is None and data.vectors != before.vectors:
        return config.model_copy(update={"data": data.model_copy(update={"old_inputs": before.vectors})})
    if data.old_inputs not in (None, before.vectors):
        raise ConfigError(
            f"key 'data.old_inputs': {data.old_inputs}, but the older generation takes {before.vectors}; leave it out"
        )
    return config


def _sizes(scenario: ScenarioConfig, configs: Mapping[str, Mapping[str, RunConfig]]) -> dict[tuple[str, str], int]:
    """The size of each run's embedding, by generation and method.

    Raises:
        ConfigError: where an embedding does not suit its older generation or the number of classes.
    """
    sizes: dict[tuple[str, str], int] = {}
    known: dict[str, int] = {}  # by section of data, which many runs share: to count classes may read all texts
    for generation, methods in configs.items():
        for name, config in methods.items():
            method, section = method_of(config), repr(config.data)
            if section not in known:
                known[section] = _classes(config.data)
            before = sizes.get(model_before(scenario, generation, name), 0)  # 0 in the first generation
            start = scenario.generations[generation][name].start
            with naming_run(generation, name), torch.random.fork_rng(devices=[]):
                model = resolve(placed_config(config, start, Path("old"), Path("independent"), 0), method).model
                old = before if teacher_keys(method)["old"] else 0
                sizes[generation, name] = method.head(model, old, known[section]).dim
    return sizes


def _check_size(key: str, said: int | None, run: tuple[str, str], sizes: Mapping[tuple[str, str], int]) -> None:
    """Raise `ConfigError` for a size that is not that of the run it comes from."""
    if said not in (None, sizes[run]):
        raise ConfigError(f"key {key!r}: {said}, but {'/'.join(run)} has an embedding of {sizes[run]}")


def _classes(data: DataConfig) -> int:
    """Of training; 2, the fewest, where they are unknown or the data are not here: a config can be checked without."""
    try:
        known = summarise(data).classes
    except DataError:
        known = None
    return 2 if known is None else len(choose_classes(data, known))
