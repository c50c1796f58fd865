"""A scenario as one checked YAML file: generations, oldest first, and their runs by method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pydantic
from pydantic import Field

from nobackfill.config import INDEPENDENT, Name, Positive, Section, parse_as, read_tree
from nobackfill.errors import ConfigError, nearest


class ScenarioRun(Section):
    """A run of a scenario: its config with changes, each `key=value` as for `--set`; a bare path is a config as is."""

    config: Path
    set: list[str] = Field(default_factory=list)
    seeds: Positive | None = None
    """Train it with fewer seeds than the scenario has; null: with as many. The same in every generation."""
    start: Literal["old", "independent"] | None = None
    """Start from the weights of this model, of the same generation (`independent`) or the one before (`old`)."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return {"config": value} if isinstance(value, str | Path) else value


class ScenarioConfig(Section):
    """A lineage: for each generation, oldest first, a run by method. Made by `load_scenario`."""

    generations: dict[Name, dict[Name, ScenarioRun]]
    """Each has `independent`; the first has nothing else; all later ones have the same methods."""
    set: list[str] = Field(default_factory=list)
    """Changes to every run."""
    seeds: Positive = 3

    @pydantic.model_validator(mode="after")
    def _check(self) -> ScenarioConfig:
        first, *later = self.generations.values() or [{}]
        if not later:
            raise ValueError("expected at least two generations")
        if set(first) != {INDEPENDENT}:
            raise ValueError(f"the first generation has one model, {INDEPENDENT!r}")
        for name, methods in list(self.generations.items())[1:]:
            if INDEPENDENT not in methods or set(methods) != set(later[0]):
                raise ValueError(f"generation {name!r}: expected {INDEPENDENT!r} and the methods of the others")
            for method, run in methods.items():
                if run.seeds != later[0][method].seeds:
                    raise ValueError(
                        f"generation {name!r}: {method!r}: expected as many seeds as in the other generations"
                    )
        for key in ("seeds", "start"):
            if any(getattr(methods[INDEPENDENT], key) is not None for methods in self.generations.values()):
                why = "it has as many as the scenario" if key == "seeds" else "it is trained from the beginning"
                raise ValueError(f"{INDEPENDENT!r}: does not take {key!r}: {why}")
        return self

    def with_changes(self, changes: Sequence[str]) -> ScenarioConfig:
        """The scenario with these changes to every run, after its own."""
        return self.model_copy(update={"set": [*self.set, *changes]})

    def seeds_of(self, method: str) -> int:
        """How many seeds a method is trained with: its own number, at most the scenario's."""
        own = [methods[method].seeds for methods in self.generations.values() if method in methods]
        return min([self.seeds, *(count for count in own if count is not None)])


def load_scenario(path: str | Path, overrides: list[str] | None = None) -> ScenarioConfig:
    """Read a scenario; the paths of its run configs are relative to its own folder. Raises `ConfigError`."""
    scenario = parse_as(ScenarioConfig, read_tree(path, overrides), str(path))
    folder = Path(path).parent
    generations = {
        # The independent model first: it is the upper bound, and a teacher of others.
        name: {
            method: methods[method].model_copy(update={"config": folder / methods[method].config})
            for method in sorted(methods, key=lambda method: method != INDEPENDENT)
        }
        for name, methods in scenario.generations.items()
    }
    return scenario.model_copy(update={"generations": generations})


def only_methods(scenario: ScenarioConfig, methods: Sequence[str]) -> ScenarioConfig:
    """A scenario with these methods and the independent one alone; raises `ConfigError` for one it does not have."""
    known = list(list(scenario.generations.values())[-1])
    for name in methods:
        if name not in known:
            raise ConfigError(f"--methods: no method {name!r} in this scenario: {nearest(name, known)}")
    kept = {
        generation: {name: run for name, run in runs.items() if name in {INDEPENDENT, *methods}}
        for generation, runs in scenario.generations.items()
    }
    return scenario.model_copy(update={"generations": kept})
