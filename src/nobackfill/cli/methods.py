"""`nobackfill methods`: what there is to choose from, and how to choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from nobackfill.cli.output import JsonOption, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from nobackfill.methods.guide import MethodCard


def methods(
    json_: JsonOption = False,
) -> None:
    """List the training methods: idea, what each needs and costs, and a chart of which to choose.

    Example: `nobackfill methods`
    """
    from dataclasses import asdict

    from nobackfill.methods.guide import CHOICE, cards
    from nobackfill.reports.tables import print_table

    if json_:
        print_json([asdict(card) for card in cards()])
        return
    print_table(_table(cards()))
    typer.echo(CHOICE)


def _table(cards: list[MethodCard]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    for heading in ("idea", "samples", "needs"):
        table.add_column(heading, overflow="fold")
    table.add_column("training runs", justify="right")
    for card in cards:
        needs = ", ".join(card.needs) + ("; trains modules beside it" if card.beside else "")
        table.add_row(card.name, escape(card.idea), ", ".join(card.samples), needs or "nothing", str(card.runs))
    return table
