"""`nobackfill report`: a report as one page to look at, or as tables; two reports beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.output import JsonOption, print_json


def report(
    source: Annotated[
        Path,
        typer.Argument(help="Output folder of `run` or `fit`, or report file of `evaluate --out`.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Output file: HTML, or Markdown if it ends in .md.")] = Path("report.html"),
    compare: Annotated[
        Path | None, typer.Option(help="A second report: show the cells that both have, and their differences.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Markdown: compare the other methods with this one.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the file when it is written.")] = False,
    json_: JsonOption = False,
) -> None:
    """Write a self-contained HTML page with verdict, matrix, curves, changed answers and classes; or Markdown tables.

    The first screen says what to do, what is gained at once, what each quarter of a backfill adds, and which queries
    and classes lose by the upgrade.

    Example: `nobackfill report runs/cifar100 --out report.html --open`

    Example: `nobackfill report fits/march --compare fits/april --out compared.html`
    """
    from dataclasses import asdict

    from nobackfill.errors import DataError
    from nobackfill.files import write_text
    from nobackfill.reports.comparing import compare_reports
    from nobackfill.reports.document import read_report
    from nobackfill.reports.html import build_comparison, build_report
    from nobackfill.reports.markdown import build_markdown, build_markdown_comparison
    from nobackfill.reports.summary import summarise_report

    markdown = out.suffix.lower() == ".md"
    if against is not None and (compare is not None or not markdown):
        other = f"--compare {compare}" if compare is not None else str(out)
        raise DataError(
            f"--against works only with Markdown of one report: expected an --out that ends in .md, found {other}"
        )
    document = read_report(source)
    if compare is not None:
        both = compare_reports(document, read_report(compare), (str(source), str(compare)))
        text = build_markdown_comparison(both) if markdown else build_comparison(both)
        said, tree = both.sentences(), asdict(both)
    else:
        text = build_markdown(document, str(source), against) if markdown else build_report(document, str(source))
        summary = summarise_report(document)
        said = [summary.decision, *summary.now, *summary.losses] if summary else []
        tree = asdict(summary) if summary else {}
    write_text(out, text)
    _show(json_, {"file": str(out), **tree}, [*said, f"{out}: {'Markdown tables' if markdown else 'written'}"])
    if open_:
        _open(out)


def _show(json_: bool, tree: dict[str, object], lines: list[str]) -> None:
    from nobackfill.errors import visible

    if json_:
        print_json(tree)
        return
    for line in lines:
        typer.echo(visible(line))


def _open(path: Path) -> None:
    """In the user's browser; where there is none, a note says so."""
    import webbrowser

    from nobackfill.progress import note

    try:
        shown = webbrowser.open(path.resolve().as_uri())
    except (OSError, webbrowser.Error):
        shown = False
    if not shown:
        note(f"{path}: no browser could be started; open the file yourself")
