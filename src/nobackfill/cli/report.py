"""`nobackfill report`: a report as one page to look at, or as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    source: Annotated[
        Path,
        typer.Argument(
            help="Output folder of `run` or `fit`, or report file of `evaluate --json`.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output file: HTML, or Markdown if it ends in .md.")] = Path("report.html"),
    against: Annotated[str | None, typer.Option(help="Markdown: compare the other methods with this one.")] = None,
) -> None:
    """Write a self-contained HTML page with verdict, matrix, curves, changed answers and classes; or Markdown tables.

    Example: `nobackfill report runs/cifar100 --out report.html`
    """
    from nobackfill.errors import DataError
    from nobackfill.files import write_text
    from nobackfill.reports.document import read_report
    from nobackfill.reports.html import build_report
    from nobackfill.reports.markdown import build_markdown

    document = read_report(source)
    if out.suffix.lower() == ".md":
        write_text(out, build_markdown(document, str(source), against))
        typer.echo(f"{out}: Markdown tables")
        return
    if against is not None:
        raise DataError(f"--against works only with Markdown: expected an --out that ends in .md, found {out}")
    write_text(out, build_report(document, str(source)))
    typer.echo(f"{out}: written; open it in a browser")
