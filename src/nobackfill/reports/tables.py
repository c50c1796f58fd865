"""Tables on the terminal; the same text where output is piped."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from nobackfill.errors import visible
from nobackfill.evaluation.scores import SCORES
from nobackfill.reports.document import Search

WIDEST = 2000  # columns of a table with very long names


def print_searches(searches: Sequence[Search], titles: Sequence[str]) -> None:
    """A row a search, scores in percent, under the names in `titles`."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("", "query", "gallery"):
        table.add_column(heading, overflow="fold")
    for score in SCORES.values():
        table.add_column(f"{score.title} %", justify="right", no_wrap=True)
    for name, search in zip(titles, searches, strict=True):
        scores = [f"{100 * search.scores[key]:.1f}" for key in SCORES]
        table.add_row(name, cell(search.query), cell(search.gallery), *scores)
    print_table(table)
    left_out = max(search.without_match for search in searches)
    if left_out:
        Console().print(f"{left_out} queries without a match in the gallery are left out of the means.")


def cell(text: str) -> str:
    """A text of unknown origin for a table: no markup, no control characters."""
    return escape(visible(text))


def print_table(table: Table) -> None:
    """In the terminal's width where the figures fit; else, and in a pipe, as wide as it needs: nothing is cut."""
    console = Console()
    needed = _needs(table, console)
    if not console.is_terminal or needed > console.width:
        console = Console(width=max(200, needed))
    console.print(table)


def _needs(table: Table, console: Console) -> int:
    """The columns of text that a table needs where those that do not wrap are whole."""
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).minimum
