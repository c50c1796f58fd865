"""`nobackfill check`: configs tried without images and teachers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.output import JsonOption, for_people, print_json

if TYPE_CHECKING:
    from nobackfill.config import RunConfig
    from nobackfill.training.check import Check


def check(
    configs: Annotated[
        list[Path], typer.Argument(help="YAML files of runs, scenarios or evaluations.", show_default=False)
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of every run config, dotted; repeatable."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Build each config's model, run one step on random data, and print what training would cost.

    Reads neither images nor teachers: a teacher's size comes from `model.old_dim`. Files of vectors and texts must
    be there: they tell sizes and classes. Hours are a rough estimate for this machine's CPU in float32, from a single
    step. Of evaluation configs, only the keys are checked.

    Example: `nobackfill check configs/reference/*.yaml`

    Example: `nobackfill check configs/cifar100/new.yaml --set model.backbone=quicknet96`
    """
    from dataclasses import asdict

    from nobackfill.config import EvaluationConfig, load_config, parse_as, read_tree
    from nobackfill.experiments.config import load_scenario
    from nobackfill.experiments.runs import try_runs

    valid: dict[str, object] = {}
    with for_people(json_):
        for path in configs:
            tree = read_tree(path)
            if "query" in tree:
                parse_as(EvaluationConfig, tree, str(path))
                typer.echo(f"{path}: evaluation config, valid")
                valid[str(path)] = None
                continue
            if "generations" in tree:
                scenario = load_scenario(path).with_changes(set_ or [])
                for name, config in try_runs(scenario).items():
                    valid[f"{path}: {name}"] = asdict(_check(f"{path}: {name}", config))
                typer.echo(f"{path}: scenario, valid")
                continue
            valid[str(path)] = asdict(_check(str(path), load_config(path, set_)))
    if json_:
        print_json({"configs": valid})


def _check(name: str, config: RunConfig) -> Check:
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
    return size


def _duration(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 2 else f"{max(1, round(60 * hours))} min"
