"""`nobackfill demo`: the whole job on one small data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.output import JsonOption
from nobackfill.cli.run import report

DIGITS = Path("configs", "digits", "scenario.yaml")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the run folders.")] = Path("nobackfill-demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds: training runs of each method.")] = 3,
    json_: JsonOption = False,
) -> None:
    """Upgrade a model of the digits 0–4 to one of 0–9 with each method, and compare the gains.

    The digits come with scikit-learn; the demo takes about a minute on two CPU cores.

    Example: `nobackfill demo --seeds 1 --out demo`
    """
    from nobackfill.experiments.config import load_scenario
    from nobackfill.files import require_new

    require_new(out)
    report(load_scenario(_scenario(), [f"seeds={seeds}"]), out, json_)


def _scenario() -> Path:
    """In a checkout the configs a reader sees; in an installed package the copies that it ships."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / DIGITS
    return checkout if checkout.is_file() else package / DIGITS
