"""`nobackfill demo`: the whole job on one small data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DIGITS = Path("configs", "digits")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the run folders.")] = Path("nobackfill-demo"),
    seeds: Annotated[int, typer.Option(min=1, help="How often to repeat it, each time from other random numbers.")] = 3,
    configs: Annotated[
        Path | None, typer.Option(help="Folder with old.yaml, new.yaml and one file a method. Default: the digits.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --out: finished runs are kept.")] = False,
) -> None:
    """Train an old model, a new one, and compatible new ones; compare what each upgrade gains.

    Without options: scikit-learn's digits, where the old model has seen 0–4 and the new ones 0–9, in two minutes.

    Example: `nobackfill demo --configs configs/cifar100 --seeds 1 --out runs/cifar100`
    """
    import time

    from nobackfill.files import require_new, write_text
    from nobackfill.reports.comparison import comparison_table, draw_matrices, summary
    from nobackfill.reports.figures import row, to_json
    from nobackfill.reports.tables import print_table
    from nobackfill.training.comparison import compare_methods, read_configs

    started = time.perf_counter()
    if not resume:
        require_new(out)
    settings = read_configs(configs or _digits())
    rows = [row(metrics, **names) for names, metrics in compare_methods(settings, seeds, out)]
    seconds = round(time.perf_counter() - started, 1)
    write_text(out / "report.json", to_json(rows, summary=summary(rows), seconds=seconds))
    draw_matrices(rows, out / "matrix.png")
    print_table(comparison_table(rows))
    typer.echo(
        f"Scores: mean{' ± standard deviation' if seeds > 1 else ''} over {seeds} seed{'s' if seeds > 1 else ''}. "
        "Update gain: 0 is doing nothing, 1 a full backfill;\nself-accuracy loss: points below the independent new "
        "model. Both on top-1."
    )
    typer.echo(f"{out}: report.json, matrix.png and the run folders, after {seconds:.0f} s")


def _digits() -> Path:
    """In a checkout the configs a reader sees; in an installed package the copies that it ships."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / DIGITS
    return checkout if checkout.is_dir() else package / DIGITS
