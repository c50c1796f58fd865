"""A lineage of generations, by every method and over several seeds: train what is missing, fill each lower triangle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nobackfill.config import INDEPENDENT, RunConfig, VectorData
from nobackfill.data import load_split
from nobackfill.errors import DataError
from nobackfill.evaluation import RetrievalMetrics
from nobackfill.experiments.config import ScenarioConfig
from nobackfill.experiments.runs import model_before, model_of, naming_run, placed_config, run_configs, try_runs
from nobackfill.experiments.search_set import SearchSet, Sides
from nobackfill.models import load
from nobackfill.progress import bar
from nobackfill.training.loop import train


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
    configs = run_configs(scenario)
    try_runs(scenario, folders=True)  # whatever is wrong, before hours pass
    names = list(configs)
    data = configs[names[-1]][INDEPENDENT].data
    protocol = test.protocol()
    seen = _as_seen(configs, test)
    vectors: dict[tuple[str, str], Sides] = {}
    with bar("scenario", sum(scenario.seeds_of(method) for methods in configs.values() for method in methods)) as step:
        for seed in range(scenario.seeds):
            for position, generation in enumerate(names):
                for method, config in configs[generation].items():
                    if seed >= scenario.seeds_of(method):
                        continue
                    root = out / f"seed{seed}"
                    old = root.joinpath(*model_before(scenario, generation, method))
                    run = root / generation / method
                    start = scenario.generations[generation][method].start
                    placed = placed_config(config, start, old, root / generation / INDEPENDENT, seed)
                    with naming_run(generation, method):
                        train(placed, run, resume=True)
                    vectors[generation, method] = seen[repr(config.data)].encode(load(run), data.processes)
                    for gallery in names[: position + 1]:
                        new = vectors[generation, method]
                        older = vectors[model_of(scenario, gallery, method)]
                        metrics = protocol.search(new[0], older[1])
                        yield Searched(method, seed, generation, gallery, metrics, new, older, run)
                    step(f"seed {seed}: {generation}/{method} done")


def scenario_test_set(scenario: ScenarioConfig) -> SearchSet:
    """What a scenario searches: the test split of the newest generation's data."""
    return SearchSet(load_split(run_configs(scenario)[list(scenario.generations)[-1]][INDEPENDENT].data, "test"))


def _as_seen(configs: Mapping[str, Mapping[str, RunConfig]], test: SearchSet) -> dict[str, SearchSet]:
    """What is searched, as each run takes it, by its section of data: the same, but of vectors each has its own.

    Raises:
        DataError: if these are not vectors of the same items, as far as labels tell.
    """
    seen: dict[str, SearchSet] = {}
    for data in (config.data for methods in configs.values() for config in methods.values()):
        if repr(data) in seen:
            continue
        seen[repr(data)] = test
        if isinstance(data, VectorData):
            own = load_split(data, "test")
            if not np.array_equal(own.labels, test.samples.labels):
                raise DataError(f"{own.origin}, {test.samples.origin}: the labels of the test rows differ; "
                                "expected the same items in every run")  # fmt: skip
            seen[repr(data)] = SearchSet(own)
    return seen
