"""The picture of a scenario: each method's compatibility matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.evaluation import MeanStd
from nobackfill.evaluation.scores import MAIN, title
from nobackfill.files import atomic_file
from nobackfill.reports.document import Report
from nobackfill.reports.lineage import methods_of, triangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS_ACROSS = 10  # side by side in the picture


def draw_matrices(report: Report, path: Path, score: str = MAIN) -> None:
    """The methods' matrices side by side; a cell's colour is its distance from the status quo."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    generations, methods = report.generations, methods_of(report.searches)
    count = len(generations)
    cells = {
        method: {
            cell: list(values.values())
            for cell, values in triangle(report.searches, method, generations, score).items()
        }
        for method in methods
    }
    # A method with fewer seeds than others is compared with the status quo of the same seeds.
    starts = {method: float(np.mean(own[generations[0], generations[0]])) for method, own in cells.items()}
    changes = {
        method: {cell: float(np.mean(values)) - starts[method] for cell, values in own.items()}
        for method, own in cells.items()
    }
    reach = max(0.01, *(abs(change) for own in changes.values() for change in own.values()))
    colours, norm = mpl.colormaps["RdBu"], mpl.colors.Normalize(-reach, reach)

    wide = min(len(methods), max(1, CELLS_ACROSS // count))
    high = -(-len(methods) // wide)
    figure = Figure(figsize=(1 + 1.25 * count * wide, 0.5 + (0.8 + 1.25 * count) * high), layout="constrained")
    figure.suptitle(
        f"{title(score)} in %, query × gallery; colour: change against {generations[0]}/{generations[0]}", fontsize=10
    )
    places = figure.subplots(high, wide, squeeze=False).ravel()
    for axes in places[len(methods) :]:
        axes.set_axis_off()
    for axes, method in zip(places, methods, strict=False):
        _frame(axes, method, generations)
        for (query, gallery), values in cells[method].items():
            column, line = generations.index(gallery), generations.index(query)
            change = changes[method][query, gallery]
            box = mpl.patches.Rectangle((column - 0.48, line - 0.48), 0.96, 0.96, facecolor=colours(norm(change)))
            axes.add_patch(box)
            note = "status quo" if (column, line) == (0, 0) else f"({100 * change:+.1f})"
            text = f"{MeanStd.of(values).text(100).replace(' ± ', chr(10) + '± ')}\n{note}"
            colour = "white" if abs(change) > 0.6 * reach else "black"
            axes.text(column, line, text, ha="center", va="center", fontsize=9, color=colour)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _frame(axes: Axes, method: str, generations: list[str]) -> None:
    count = len(generations)
    axes.set(title=method, xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="gallery", ylabel="query")
    axes.set_xticks(range(count), generations)
    axes.set_yticks(range(count), generations)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
