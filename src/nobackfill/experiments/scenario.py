"""A lineage of generations, by every method and over several seeds: train what is missing, fill each lower triangle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nobackfill.config import INDEPENDENT, DataConfig, RunConfig, VectorData, load_config
from nobackfill.data import choose_classes, load_split, summarise
from nobackfill.data.vectors import read_rows, split_rows
from nobackfill.errors import ConfigError, DataError
from nobackfill.evaluation import RetrievalMetrics
from nobackfill.experiments.config import ScenarioConfig
from nobackfill.experiments.search_set import SearchSet, Sides
from nobackfill.models import load
from nobackfill.progress import bar
from nobackfill.training.loop import train
from nobackfill.training.resolving import method_of, resolve, teacher_keys


@dataclass(frozen=True)
class Searched:
    """One search: a generation's queries, by one method and seed, in the gallery of the same or an older generation.

    Attributes:
        new, old: queries and gallery of the test split by the query's model, and by the gallery's.
        run: run folder of the query's model.
    """

    method: str
    seed: int
    query: str
    gallery: str
    metrics: RetrievalMetrics
    new: Sides
    old: Sides
    run: Path


def run_scenario(scenario: ScenarioConfig, out: Path, test: SearchSet) -> Iterator[Searched]:
    """Train every run under `out/seed<n>/<generation>/<method>` and search each older gallery with each newer model.

    The first generation is the independent model of its config, shared by all methods; the old model of a later one is
    the generation before it by the same method. A run folder that is there already is reused if its config is the
    same, an unfinished one is resumed. Galleries and queries are those of `test`; of vectors, each generation embeds
    the test rows of its own file.

    Yields:
        For every seed, every method that has it, and every pair of generations a search, newest query last; the first
        generation's search of itself comes once, as "independent".
    """
    configs = _configs(scenario)
    changed_configs(scenario)  # whatever is wrong, before hours pass
    names = list(configs)
    data = configs[names[-1]][INDEPENDENT].data
    protocol = test.protocol()
    seen = {name: _as_seen(configs[name][INDEPENDENT].data, test) for name in names}
    vectors: dict[tuple[str, str], Sides] = {}
    with bar("scenario", sum(scenario.seeds_of(method) for methods in configs.values() for method in methods)) as step:
        for seed in range(scenario.seeds):
            for position, generation in enumerate(names):
                for method, config in configs[generation].items():
                    if seed >= scenario.seeds_of(method):
                        continue
                    before = names[position - 1]
                    root = out / f"seed{seed}"
                    old = root / before / (INDEPENDENT if position == 1 else method)
                    run = root / generation / method
                    start = scenario.generations[generation][method].start
                    train(_placed(config, start, old, root / generation / INDEPENDENT, seed), run, resume=True)
                    vectors[generation, method] = seen[generation].encode(load(run), data.processes)
                    for gallery in names[: position + 1]:
                        new = vectors[generation, method]
                        older = vectors[gallery, INDEPENDENT if gallery == names[0] else method]
                        metrics = protocol.search(new[0], older[1])
                        yield Searched(method, seed, generation, gallery, metrics, new, older, run)
                    step(f"seed {seed}: {generation}/{method} done")


def scenario_test_set(scenario: ScenarioConfig) -> SearchSet:
    """What a scenario searches: the test split of the newest generation's data."""
    return SearchSet(load_split(_configs(scenario)[list(scenario.generations)[-1]][INDEPENDENT].data, "test"))


def _as_seen(data: DataConfig, test: SearchSet) -> SearchSet:
    """What is searched, as a generation takes it: the same, but of vectors each generation has its own.

    Raises:
        DataError: if these are not vectors of the same items, as far as labels tell.
    """
    if not isinstance(data, VectorData):
        return test
    own = load_split(data, "test")
    if not np.array_equal(own.labels, test.samples.labels):
        raise DataError(f"{own.origin}, {test.samples.origin}: the labels of the test rows differ; "
                        "expected the same items in every generation")  # fmt: skip
    return SearchSet(own)


def changed_configs(scenario: ScenarioConfig) -> dict[str, RunConfig]:
    """`generation/method` → config of the runs that change their file's settings; the teachers are placeholders.

    Raises:
        ConfigError: for anything wrong with any run of the scenario.
    """
    changed, configs = {}, _configs(scenario)
    sizes = _old_sizes(configs)
    for generation, methods in configs.items():
        for method, config in methods.items():
            run = scenario.generations[generation][method]
            placed = _placed(config, run.start, Path("old"), Path("independent"), 0)
            if size := sizes[generation, method]:
                model = placed.model.model_copy(update={"old_dim": size})
                placed = placed.model_copy(update={"model": model})
            with _naming(generation, method):
                resolve(placed)
            if scenario.set or run.set:
                changed[f"{generation}/{method}"] = placed
    return changed


def _configs(scenario: ScenarioConfig) -> dict[str, dict[str, RunConfig]]:
    configs: dict[str, dict[str, RunConfig]] = {}
    before: dict[str, RunConfig] = {}  # by method, the run of the older generation
    for generation, methods in scenario.generations.items():
        loaded = {}
        for method, run in methods.items():
            with _naming(generation, method):
                loaded[method] = load_config(run.config, [*run.set, *scenario.set])
        if before:
            loaded = {
                name: _with_old_inputs(f"{generation}/{name}", config, before[name]) for name, config in loaded.items()
            }
        configs[generation] = loaded
        before = loaded if before else dict.fromkeys(list(scenario.generations.values())[-1], loaded[INDEPENDENT])
    return configs


@contextmanager
def _naming(generation: str, method: str) -> Iterator[None]:
    """Errors of a config name its run: a change that fits one run may not fit another."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{generation}/{method}: {error}") from error


def _with_old_inputs(name: str, config: RunConfig, older: RunConfig) -> RunConfig:
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
            f"{name}: its test rows are not those of the older generation; expected the same data.test_rows, data.rows "
            "and data.holdout in every run"
        )
    if data.old_vectors is not None or not teacher_keys(method_of(config))["old"]:
        return config
    if data.old_inputs is None and data.vectors != before.vectors:
        return config.model_copy(update={"data": data.model_copy(update={"old_inputs": before.vectors})})
    if data.old_inputs not in (None, before.vectors):
        raise ConfigError(
            f"{name}: key 'data.old_inputs': {data.old_inputs}, but the older generation takes {before.vectors}; "
            "leave it out"
        )
    return config


def _old_sizes(configs: Mapping[str, Mapping[str, RunConfig]]) -> dict[tuple[str, str], int]:
    """The size of each run's old embedding, by generation and method; 0 where it has none.

    Raises:
        ConfigError: where an embedding does not suit its older generation or the number of classes.
    """
    old: dict[tuple[str, str], int] = {}
    before: dict[str, int] = {}  # by method, the size of the older generation
    known: dict[str, int] = {}  # by section of data, which many runs share: to count classes may read all texts
    for generation, methods in configs.items():
        sizes: dict[str, int] = {}
        for name, config in methods.items():
            method, section = method_of(config), repr(config.data)
            if section not in known:
                known[section] = _classes(config.data)
            old[generation, name] = before[name] if before and teacher_keys(method)["old"] else 0
            with _naming(generation, name), torch.random.fork_rng(devices=[]):
                model = resolve(_placed(config, None, Path("old"), Path("independent"), 0), method).model
                sizes[name] = method.head(model, old[generation, name], known[section]).dim
        before = sizes if before else dict.fromkeys(list(configs.values())[-1], sizes[INDEPENDENT])
    return old


def _classes(data: DataConfig) -> int:
    """Of training; 2, the fewest, where they are unknown or the data are not here: a config can be checked without."""
    try:
        known = summarise(data).classes
    except DataError:
        known = None
    return 2 if known is None else len(choose_classes(data, known))


def _placed(config: RunConfig, start: str | None, old: Path, independent: Path, seed: int) -> RunConfig:
    """A run's config with its seed, and the run folders of its teachers and of the model it starts from."""
    places = {"old": old, INDEPENDENT: independent}
    needed = teacher_keys(method_of(config))
    given: dict[str, Path | None] = {key: places[key] if needed[key] else None for key in needed}
    if start is not None:
        given["init_from"] = places[start]
    return config.model_copy(update={"seed": seed, **given})
