"""`nobackfill train`: one run from one config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import typer

from nobackfill.cli.output import JsonOption, print_json


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.", show_default=False)],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one config key, dotted; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output run folder. Default: runs/<config's folder>/<config's name>.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the unfinished run of this folder.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard's event files (needs the extra `tensorboard`).")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Train one model and write its run folder.

    Ctrl-C or SIGTERM finishes the step, saves a checkpoint and exits; --resume continues, to the same weights as a run
    without interruption. On several GPUs start it with `accelerate launch -m nobackfill train …` or `torchrun`.

    Example: `nobackfill train configs/digits/bt2.yaml --set seed=1 --set old=runs/digits/old --out runs/digits/bt2`
    """
    from nobackfill.config import load_config

    settings = load_config(config, set_)
    from nobackfill.evaluation.scores import PAIR_SCORES, SCORES
    from nobackfill.evaluation.scores import title as score_title
    from nobackfill.models.runfolder import read_record
    from nobackfill.reports.training import draw_history
    from nobackfill.training import train as train_run
    from nobackfill.training.processes import is_main

    out = out or Path("runs", config.resolve().parent.name, config.stem)
    run = train_run(settings, out, resume=resume, on_epoch=_event_writer(tensorboard) if tensorboard else None)
    if not is_main():
        return
    draw_history(run)
    metrics = read_record(run / "metrics.json")
    if json_:
        print_json({"run": str(run), **metrics})
        return
    typer.echo(f"{run}: trained in {metrics['seconds']:.0f} s on {metrics['device']}, {metrics['precision']}")
    tests = cast("dict[str, dict[str, float]]", metrics)
    for name, title in (("status_quo", "old/old"), ("cross_test", "new/old"), ("self_test", "new/new")):
        if name in tests:
            label = title if "cross_test" in tests else "self-test"
            keys = [*SCORES, *(key for key in PAIR_SCORES if key in tests[name])]
            scores = "  ".join(f"{score_title(key)} {tests[name][key]:6.1%}" for key in keys)
            typer.echo(f"  {label:9}  {scores}")
    if "not_tested" in metrics:
        typer.echo(f"  not tested: {metrics['not_tested']}")


def _event_writer(folder: Path) -> Callable[[dict[str, float]], None]:
    """Writes each line of the history for TensorBoard."""
    from nobackfill.errors import require

    require("tensorboard", what="--tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def write(line: dict[str, float]) -> None:
        for name, value in line.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(line["epoch"]))
        writer.flush()

    return write
