"""The table and the picture of a comparison of methods over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nobackfill.evaluation import Spread, self_accuracy_loss, update_gain
from nobackfill.files import whole_file
from nobackfill.reports.figures import SCORES

Row = dict[str, Any]
CELLS = (("old", "old"), ("new", "old"), ("new", "new"))


def scores(rows: Sequence[Row], method: str, query: str, gallery: str, score: str) -> list[float]:
    """One score of one cell, a value a seed, in the order of the seeds."""
    wanted = {"method": method, "query": query, "gallery": gallery}
    chosen = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return [row[score] for row in sorted(chosen, key=lambda row: row["seed"])]


def upgrade_figures(rows: Sequence[Row], method: str, score: str) -> dict[str, Spread]:
    """`update_gain` and `self_accuracy_loss` of one method over the seeds, each against its own seed's models."""
    status_quo = scores(rows, "old", "old", "old", score)
    bound = scores(rows, "independent", "new", "new", score)
    new_old = scores(rows, method, "new", "old", score)
    new_new = scores(rows, method, "new", "new", score)
    return {
        "update_gain": Spread.of([update_gain(*values) for values in zip(new_old, status_quo, bound, strict=True)]),
        "self_accuracy_loss": Spread.of([self_accuracy_loss(*values) for values in zip(new_new, bound, strict=True)]),
    }


def methods_of(rows: Sequence[Row]) -> list[str]:
    """The methods in the order they were evaluated, the old model left out."""
    return list(dict.fromkeys(row["method"] for row in rows if row["method"] != "old"))


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Mean and deviation of each cell, and of gain and loss on each score, for the JSON report (NaN as null)."""
    cells = []
    for method, query, gallery in dict.fromkeys((row["method"], row["query"], row["gallery"]) for row in rows):
        spreads = {score: Spread.of(scores(rows, method, query, gallery, score)) for score in SCORES}
        cells.append({"method": method, "query": query, "gallery": gallery, **_plain(spreads)})
    upgrades = [
        {"method": method, "score": score, **_plain(upgrade_figures(rows, method, score))}
        for method in methods_of(rows)
        for score in SCORES
    ]
    return [*cells, *upgrades]


def comparison_table(rows: Sequence[Row]) -> Table:
    """A row a method and cell: scores in percent; gain and loss on top-1 where they belong."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    table.add_column("query/gallery", no_wrap=True)
    for title in (*(f"{title} %" for title in SCORES.values()), "update gain", "self-acc. loss"):
        table.add_column(title, justify="right", no_wrap=True)
    for method in ["old", *methods_of(rows)]:
        gains = None if method == "old" else upgrade_figures(rows, method, "top1")
        for query, gallery in CELLS:
            cell = [scores(rows, method, query, gallery, score) for score in SCORES]
            if not cell[0]:
                continue
            gain = gains["update_gain"].text(digits=2, sign="+") if gains and gallery == "old" else ""
            loss = gains["self_accuracy_loss"].text(100, sign="+") if gains and gallery == "new" else ""
            first = "" if (query, gallery) == ("new", "new") else method
            spreads = [Spread.of(values).text(100) for values in cell]
            table.add_row(first, f"{query}/{gallery}", *spreads, gain, loss)
        table.add_section()
    return table


def draw_matrices(rows: Sequence[Row], path: Path, score: str = "top1") -> None:
    """The compatibility matrix of each method, side by side; a cell's colour is its distance from the status quo."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    methods = methods_of(rows)
    status_quo = Spread.of(scores(rows, "old", "old", "old", score))
    cells = {(method, *cell): Spread.of(scores(rows, method, *cell, score)) for method in methods for cell in CELLS[1:]}
    reach = max(0.01, *(abs(spread.mean - status_quo.mean) for spread in cells.values()))
    colours, norm = mpl.colormaps["RdBu"], mpl.colors.Normalize(-reach, reach)

    figure = Figure(figsize=(1.2 + 2.5 * len(methods), 3.6), layout="constrained")
    figure.suptitle(
        f"{SCORES[score]} in %, query × gallery; colour: change against the status quo (old/old)", fontsize=10
    )
    for axes, method in zip(figure.subplots(1, len(methods), squeeze=False)[0], methods, strict=True):
        axes.set(title=method, xlim=(-0.5, 1.5), ylim=(1.5, -0.5), aspect="equal", xlabel="gallery", ylabel="query")
        axes.set_xticks([0, 1], ["old", "new"])
        axes.set_yticks([0, 1], ["old", "new"])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for query, gallery in CELLS:
            spread = cells.get((method, query, gallery), status_quo)
            change = spread.mean - status_quo.mean
            column, line = int(gallery == "new"), int(query == "new")
            box = mpl.patches.Rectangle((column - 0.48, line - 0.48), 0.96, 0.96, facecolor=colours(norm(change)))
            axes.add_patch(box)
            dark = abs(change) > 0.6 * reach
            text = spread.text(100).replace(" ± ", "\n± ") + (
                "\nstatus quo" if query == "old" else f"\n({100 * change:+.1f})"
            )
            axes.text(column, line, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _plain(spreads: dict[str, Spread]) -> dict[str, float | None]:
    return {
        f"{name}{suffix}": None if math.isnan(value) else value
        for name, spread in spreads.items()
        for suffix, value in (("", spread.mean), ("_sd", spread.sd))
    }
