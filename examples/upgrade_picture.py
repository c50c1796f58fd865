"""The picture of an upgrade: its scores as a matrix, and what each tenth of the backfill buys.

    python examples/upgrade_picture.py docs/results/cifar100_warm_bt2.json docs/images/upgrade.svg

The first argument is a file that `nobackfill evaluate --out` wrote, for one old and one new model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nobackfill.reports.document import UpgradeSection, read_report

BLUE, GREY, PALE = "#1f6fb4", "#555555", "#e8eef5"
SCORE = "top1"


def main(source: Path, target: Path) -> None:
    """Draw the first upgrade of a report."""
    mpl.rcParams.update({"svg.hashsalt": "upgrade", "font.size": 10})  # the same bytes at each run
    upgrade = read_report(source).upgrades[0]
    figure = Figure(figsize=(8.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    draw_matrix(left, upgrade)
    draw_curve(right, upgrade)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})


def draw_matrix(axes: Axes, upgrade: UpgradeSection) -> None:
    """Top-1 of each kind of query in each kind of gallery, with its change from the status quo."""
    scores = {cell: 100 * values[SCORE].mean for cell, values in upgrade.result.scores.items()}
    start = scores["old/old"]
    places = {"old/old": (0, 0), "new/old": (0, 1), "new/new": (1, 1)}
    for cell, (column, line) in places.items():
        gain = scores[cell] - start
        colour = PALE if cell == "old/old" else BLUE
        box = mpl.patches.Rectangle((column - 0.48, line - 0.48), 0.96, 0.96, facecolor=colour)
        box.set_alpha(1 if cell == "old/old" else 0.8 + 0.2 * gain / max(scores["new/new"] - start, 1e-9))
        axes.add_patch(box)
        ink = "black" if cell == "old/old" else "white"
        axes.text(column, line - 0.12, f"{scores[cell]:.1f} %", ha="center", va="center", fontsize=14, color=ink)
        note = "doing nothing" if cell == "old/old" else f"{gain:+.1f} points"
        axes.text(column, line + 0.2, note, ha="center", va="center", fontsize=9, color=ink)
    axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), aspect="equal", title="top-1 accuracy")
    axes.set_xticks([0, 1], ["old gallery", "re-embedded"])
    axes.set_yticks([0, 1], ["old\nqueries", "new\nqueries"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_curve(axes: Axes, upgrade: UpgradeSection) -> None:
    """Top-1 of new queries against the part of the gallery that is embedded anew."""
    curve = upgrade.result.curve
    if curve is None:
        raise SystemExit("this report has no backfilling curve")
    values = [100 * value for value in curve.scores[SCORE]]
    level = 100 * upgrade.result.scores["old/old"][SCORE].mean
    axes.plot([100 * part for part in curve.fractions], values, marker="o", color=BLUE, clip_on=False)
    axes.axhline(level, color=GREY, linestyle="--", linewidth=1)
    axes.text(100, level + 0.6, "old model, nothing done", ha="right", va="bottom", color=GREY)
    axes.annotate(
        "upgraded, nothing re-embedded",
        (0, values[0]),
        xytext=(14, -3),
        textcoords="offset points",
        va="center",
        color=BLUE,
    )
    axes.set(xlim=(0, 100), xlabel="gallery re-embedded, %", ylabel="top-1, %", title="new queries during the backfill")
    axes.set_ylim(min(level, *values) - 4, max(values) + 4)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
