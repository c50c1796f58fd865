"""Tables on the terminal; the same text where output is piped."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nobackfill.reports.figures import SCORES


def print_rows(rows: list[dict[str, Any]], titles: list[str]) -> None:
    """A row a (query, gallery) pair, scores in percent, under the names in `titles`."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("", "query", "gallery"):
        table.add_column(heading, overflow="fold")
    for heading in SCORES.values():
        table.add_column(f"{heading} %", justify="right", no_wrap=True)
    for title, row in zip(titles, rows, strict=True):
        scores = [f"{100 * row[name]:.1f}" for name in SCORES]
        table.add_row(title, escape(str(row["query"])), escape(str(row["gallery"])), *scores)
    print_table(table)
    left_out = max(row["without_match"] for row in rows)
    if left_out:
        Console().print(f"{left_out} queries have no match in the gallery; they are left out of the means.")


def print_table(table: Table) -> None:
    """On a terminal in its width; elsewhere as wide as the table needs, so that nothing is cut."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
