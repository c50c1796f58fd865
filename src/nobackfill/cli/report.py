"""`nobackfill report`: the figures as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    source: Annotated[
        Path, typer.Argument(help="Folder that `run` filled, or a file of `evaluate --json`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one HTML file with verdict, matrix, curves, changed answers and classes; it needs no network.

    Example: `nobackfill report runs/cifar100 --out report.html`
    """
    from nobackfill.files import write_text
    from nobackfill.reports.html import build_report, read_document

    write_text(out, build_report(read_document(source), str(source)))
    typer.echo(f"{out}: open it in a browser")
