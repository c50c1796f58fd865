"""The tables and the picture of a lineage of generations: every method's lower triangle, over seeds.

A row is one search: {"method", "seed", "query", "gallery"} and its scores; `generations` names them, oldest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nobackfill.config import INDEPENDENT
from nobackfill.evaluation import Spread, average_compatibility, average_score, self_accuracy_loss, update_gain
from nobackfill.files import atomic_file
from nobackfill.reports.figures import SCORES

MATRIX_CELLS = 10  # side by side in the picture

Row = dict[str, Any]
Cells = dict[tuple[str, str], list[float]]


def methods_of(rows: Sequence[Row]) -> list[str]:
    """The methods in the order they were evaluated, independent first."""
    return list(dict.fromkeys(row["method"] for row in rows))


def triangle(rows: Sequence[Row], method: str, generations: Sequence[str], score: str) -> Cells:
    """(query, gallery) → one score, a value a seed; the first generation's own cell is every method's."""
    cells: Cells = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        own = row["query"] == row["gallery"] == generations[0]
        if row["method"] == (INDEPENDENT if own else method):
            cells.setdefault((row["query"], row["gallery"]), []).append(row[score])
    return cells


def upgrade_figure(cells: Cells, bounds: Cells, query: str, gallery: str) -> Spread:
    """Of a cell off the diagonal its update gain, of one on it the self-accuracy loss; seed by seed.

    `bounds` are the independent models' cells.
    """
    own, bound = cells[query, gallery], bounds[query, query]
    if query == gallery:
        return Spread.of([self_accuracy_loss(*values) for values in zip(own, bound, strict=True)])
    return Spread.of([update_gain(*values) for values in zip(own, cells[gallery, gallery], bound, strict=True)])


def lineage_figures(cells: Cells, generations: Sequence[str]) -> dict[str, Spread]:
    """AC and AM over the seeds."""
    seeds = range(len(cells[generations[0], generations[0]]))
    matrices = [
        [[cells[query, gallery][seed] for gallery in generations[: i + 1]] for i, query in enumerate(generations)]
        for seed in seeds
    ]
    return {
        "AC": Spread.of(list(map(average_compatibility, matrices))),
        "AM": Spread.of(list(map(average_score, matrices))),
    }


def summary(rows: Sequence[Row], generations: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and deviation of each cell with its gain or loss, and AC and AM, for each method and score (NaN as null)."""
    lines = []
    for score in SCORES:
        bounds = triangle(rows, INDEPENDENT, generations, score)
        for method in methods_of(rows):
            cells = triangle(rows, method, generations, score)
            for (query, gallery), values in cells.items():
                figure = "self_accuracy_loss" if query == gallery else "update_gain"
                spreads = {"score": Spread.of(values), figure: upgrade_figure(cells, bounds, query, gallery)}
                names = {"of": score, "method": method, "query": query, "gallery": gallery}
                lines.append({**names, **_plain(spreads)})
            lines.append({"of": score, "method": method, **_plain(lineage_figures(cells, generations))})
    return lines


def lineage_table(rows: Sequence[Row], generations: Sequence[str]) -> Table:
    """A row a method and cell: scores in percent; update gain and self-accuracy loss on top-1 where they belong."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    table.add_column("query/gallery", no_wrap=True)
    for title in (*(f"{title} %" for title in SCORES.values()), "update gain", "self-acc. loss"):
        table.add_column(title, justify="right", no_wrap=True)
    first = (generations[0], generations[0])
    bounds = triangle(rows, INDEPENDENT, generations, "top1")
    status_quo = [Spread.of(triangle(rows, INDEPENDENT, generations, score)[first]).text(100) for score in SCORES]
    table.add_row("status quo", "/".join(first), *status_quo, "", "", end_section=True)
    for method in methods_of(rows):
        cells = {score: triangle(rows, method, generations, score) for score in SCORES}
        title = method
        for query, gallery in (cell for cell in cells["top1"] if cell != first):
            figure = upgrade_figure(cells["top1"], bounds, query, gallery)
            gain = "" if query == gallery else figure.text(digits=2, sign="+")
            loss = figure.text(100, sign="+") if query == gallery else ""
            spreads = [Spread.of(cells[score][query, gallery]).text(100) for score in SCORES]
            table.add_row(title, f"{query}/{gallery}", *spreads, gain, loss)
            title = ""
        table.add_section()
    return table


def long_table(rows: Sequence[Row], generations: Sequence[str]) -> Table:
    """AC and AM of each method on top-1: of use for three generations and more."""
    table = Table(box=SIMPLE_HEAD)
    for title in ("method", "AC (top-1)", "AM (top-1) %"):
        table.add_column(title, justify="left" if title == "method" else "right", no_wrap=True)
    for method in methods_of(rows):
        figures = lineage_figures(triangle(rows, method, generations, "top1"), generations)
        table.add_row(method, figures["AC"].text(digits=2), figures["AM"].text(100))
    return table


def draw_matrices(rows: Sequence[Row], generations: Sequence[str], path: Path, score: str = "top1") -> None:
    """Each method's compatibility matrix, side by side; a cell's colour is its distance from the status quo."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    methods, count = methods_of(rows), len(generations)
    means = {
        method: {cell: Spread.of(values) for cell, values in triangle(rows, method, generations, score).items()}
        for method in methods
    }
    status_quo = means[INDEPENDENT][generations[0], generations[0]]
    reach = max(0.01, *(abs(spread.mean - status_quo.mean) for cells in means.values() for spread in cells.values()))
    colours, norm = mpl.colormaps["RdBu"], mpl.colors.Normalize(-reach, reach)

    wide = min(len(methods), max(1, MATRIX_CELLS // count))
    high = -(-len(methods) // wide)
    figure = Figure(figsize=(1 + 1.25 * count * wide, 0.5 + (0.8 + 1.25 * count) * high), layout="constrained")
    figure.suptitle(
        f"{SCORES[score]} in %, query × gallery; colour: change against {generations[0]}/{generations[0]}", fontsize=10
    )
    places = figure.subplots(high, wide, squeeze=False).ravel()
    for axes in places[len(methods) :]:
        axes.set_axis_off()
    for axes, method in zip(places, methods, strict=False):
        axes.set(title=method, xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="gallery", ylabel="query")
        axes.set_xticks(range(count), generations)
        axes.set_yticks(range(count), generations)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for (query, gallery), spread in means[method].items():
            column, line = generations.index(gallery), generations.index(query)
            change = spread.mean - status_quo.mean
            box = mpl.patches.Rectangle((column - 0.48, line - 0.48), 0.96, 0.96, facecolor=colours(norm(change)))
            axes.add_patch(box)
            note = "status quo" if (column, line) == (0, 0) else f"({100 * change:+.1f})"
            text = f"{spread.text(100).replace(' ± ', chr(10) + '± ')}\n{note}"
            colour = "white" if abs(change) > 0.6 * reach else "black"
            axes.text(column, line, text, ha="center", va="center", fontsize=9, color=colour)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _plain(spreads: dict[str, Spread]) -> dict[str, float | None]:
    return {
        f"{name}{suffix}": None if math.isnan(value) else value
        for name, spread in spreads.items()
        for suffix, value in (("", spread.mean), ("_sd", spread.sd))
    }
