"""`nobackfill check`: configs tried without their data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nobackfill.config import RunConfig


def check(
    configs: Annotated[
        list[Path], typer.Argument(help="YAML files of runs, scenarios or evaluations.", show_default=False)
    ],
) -> None:
    """Build each config's model, run one step on random data, and print what training would cost.

    Reads neither data nor teachers: a teacher's size comes from `model.old_dim`. Hours are a rough estimate for
    this machine's CPU in float32, from a single step. Of evaluation configs, only the keys are checked.

    Example: `nobackfill check configs/reference/*.yaml`
    """
    from nobackfill.config import EvaluationConfig, parse_as, parse_config, read_tree
    from nobackfill.experiments.config import load_scenario
    from nobackfill.experiments.scenario import changed_configs

    for path in configs:
        tree = read_tree(path)
        if "query" in tree:
            parse_as(EvaluationConfig, tree, str(path))
            typer.echo(f"{path}: evaluation config, valid")
            continue
        if "generations" in tree:
            for name, config in changed_configs(load_scenario(path)).items():
                _check(f"{path}: {name}", config)
            typer.echo(f"{path}: scenario, valid")
            continue
        _check(str(path), parse_config(tree, str(path)))


def _check(name: str, config: RunConfig) -> None:
    from nobackfill.errors import NobackfillError
    from nobackfill.training.check import check_config

    try:
        size = check_config(config)
    except NobackfillError as error:
        raise type(error)(f"{name}: {error}") from error
    steps = "steps unknown" if size.steps is None else f"{size.epochs} × {size.steps} steps"
    hours = "" if size.hours is None else f", about {_duration(size.hours)} on this machine"
    typer.echo(
        f"{name}: {size.parameters / 1e6:.2f} M parameters, {size.macs / 1e9:.3f} GMAC per sample, "
        f"embedding of {size.dim} values, {steps}, batch size {size.batch_size}{hours}"
    )


def _duration(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 2 else f"{max(1, round(60 * hours))} min"
