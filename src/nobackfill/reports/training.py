"""The training curves of a run folder, as numbers and as a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

from nobackfill.files import whole_file

Line = dict[str, float]
NOT_LOSSES = ("epoch", "lr", "images_per_second", "memory_mb")


def history(run: Path) -> list[Line]:
    """The epochs in `history.jsonl`: numbers by name; empty where there is none (imported models) or it is damaged."""
    path = run / "history.jsonl"
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    return [
        {str(name): value for name, value in line.items() if isinstance(value, int | float)}
        for line in lines
        if isinstance(line, dict)
    ]


def draw_history(run: Path) -> Path | None:
    """Write `training.png` into a run folder: loss, its parts and the learning rate by epoch; None without any."""
    lines = history(run)
    if not lines:
        return None
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    epochs = [line["epoch"] for line in lines]
    parts = [name for name in lines[-1] if name not in NOT_LOSSES]
    figure = Figure(figsize=(7, 5), layout="constrained")
    losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name in parts if len(parts) > 2 else ["loss"]:  # of a single part, the sum says all
        total = name == "loss"
        losses.plot(
            epochs,
            [line.get(name, math.nan) for line in lines],
            color="black" if total else None,
            marker=".",
            label="sum" if total and len(parts) > 2 else name,
        )
    losses.set(ylabel="training loss")
    losses.legend(frameon=False)
    rate.plot(epochs, [line["lr"] for line in lines], color="grey", marker=".")
    rate.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (losses, rate):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    path = run / "training.png"
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path
