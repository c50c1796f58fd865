"""`docs/images/upgrade.svg` from a report: what one method gains at once, and during the backfill.

python docs/scripts/upgrade_picture.py docs/results/cifar100.json bt2_tuned docs/images/upgrade.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

BLUE, PALE = "#1f6fb5", "#e6edf7"
plt.rcParams.update({"svg.hashsalt": "nobackfill", "font.size": 9})


def cells(axes: Axes, scores: dict[str, float]) -> None:
    """The three searches as squares."""
    places = {"old/old": (0, 1, PALE, "black"), "new/old": (0, 0, "#3b80c0", "white"), "new/new": (1, 0, BLUE, "white")}
    for cell, (x, y, colour, ink) in places.items():
        axes.add_patch(Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, color=colour))
        gain = scores[cell] - scores["old/old"]
        axes.text(x + 0.5, y + 0.6, f"{scores[cell]:.1f} %", color=ink, ha="center", fontsize=12)
        axes.text(
            x + 0.5, y + 0.28, f"{gain:+.1f} points" if gain else "doing nothing", color=ink, ha="center", fontsize=8
        )
    axes.set(xlim=(0, 2), ylim=(0, 2), aspect="equal", title="top-1 accuracy")
    axes.set_xticks([0.5, 1.5], ["old gallery", "re-embedded"])
    axes.set_yticks([0.5, 1.5], ["new\nqueries", "old\nqueries"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def main(report: str, method: str, out: str) -> None:
    """Draw one method of a report to `out`."""
    tree: dict[str, Any] = json.loads(Path(report).read_text(encoding="utf-8"))
    result = next(each["result"] for each in tree["upgrades"] if each["method"] == method)
    scores = {cell: 100 * values["top1"]["mean"] for cell, values in result["scores"].items()}
    curve = result["curve"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.1), width_ratios=(1, 1.8), layout="constrained")
    cells(left, scores)
    right.plot(
        [100 * part for part in curve["fractions"]],
        [100 * value for value in curve["scores"]["top1"]],
        "o-",
        color=BLUE,
    )
    right.axhline(scores["old/old"], color="#444444", linestyle="--", linewidth=1)
    right.text(100, scores["old/old"] + 0.7, "old model, nothing done", ha="right", color="#444444")
    right.text(4, 100 * curve["scores"]["top1"][0] - 1, "upgraded, nothing re-embedded", color=BLUE)
    right.set(
        xlim=(0, 101), title="new queries during the backfill", xlabel="gallery re-embedded, %", ylabel="top-1, %"
    )
    right.grid(alpha=0.3)
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
