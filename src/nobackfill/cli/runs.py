"""`nobackfill runs`: what is in a folder of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.output import JsonOption, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from nobackfill.training.runs import RunState


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder to search for run folders, at any depth.")] = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """List runs with their state (done, training, unfinished, failed or damaged), metrics and age.

    Example: `nobackfill runs runs/cifar100`
    """
    from dataclasses import asdict

    from nobackfill.errors import RunError, visible
    from nobackfill.reports.tables import print_table
    from nobackfill.training.runs import find_runs

    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; give one that holds run folders")
    states = list(find_runs(folder))
    if json_:
        print_json([{**asdict(run), "path": str(run.path)} for run in states])
        return
    if not states:
        typer.echo(f"{folder}: no runs in it")
        return
    print_table(_table(states, folder))
    for run in states:
        if run.reason:
            typer.echo(visible(f"{run.path}: {run.reason}"))


def _table(states: list[RunState], folder: Path) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from nobackfill.evaluation.scores import MAIN, title
    from nobackfill.reports.tables import cell

    table = Table(box=SIMPLE_HEAD)
    # On a narrow terminal the numbers wrap first: a row without its run says nothing.
    table.add_column("run", overflow="fold", min_width=14)
    table.add_column("method", overflow="fold", min_width=6)
    table.add_column("state", overflow="fold", min_width=7)
    for heading in (f"new/new {title(MAIN)} %", f"new/old {title(MAIN)} %", "trained", "changed"):
        table.add_column(heading, justify="right", overflow="fold")
    for run in states:
        scores = [run.scores.get(name, {}).get(MAIN) for name in ("self_test", "cross_test")]
        state = run.state if run.state in ("done", "damaged") else f"{run.state} at {run.progress:.0%}"
        table.add_row(
            cell(str(run.path.relative_to(folder))),
            cell(run.method or ""),
            state,
            *("" if score is None else f"{100 * score:.1f}" for score in scores),
            "" if run.seconds is None else duration(run.seconds),
            f"{duration(run.age)} ago",
        )
    return table


def duration(seconds: float) -> str:
    """In the unit a person would choose."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
