"""The training curves of a run folder, as numbers and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nobackfill.files import atomic_file

Epoch = dict[str, float]
"""Numbers of an epoch, by name."""
NOT_LOSSES = ("epoch", "lr", "images_per_second", "memory_mb")


def history(run: Path) -> list[Epoch]:
    """The epochs in `history.jsonl`: numbers by name; empty where there is none (imported models) or it is damaged."""
    path = run / "history.jsonl"
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError):
        return []
    epochs = [
        {str(name): value for name, value in line.items() if _finite(value)} for line in lines if isinstance(line, dict)
    ]
    return epochs if all({"epoch", "loss"} <= set(epoch) for epoch in epochs) else []


def _finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def draw_learning(training: Mapping[str, Sequence[Epoch]], generation: str, path: Path) -> bool:
    """One picture of a generation's methods: training loss on the labels by epoch, mean and range over the seeds.

    Args:
        training: `seed<n>/<generation>/<method>` → its `history`.
        generation: whose runs.
        path: PNG file to write.

    Returns:
        False if no run of the generation has such a loss.
    """
    curves: dict[str, list[list[float]]] = {}
    for name, lines in training.items():
        _, own, method = name.split("/")
        if own == generation and lines and all("labels" in line for line in lines):
            curves.setdefault(method, []).append([line["labels"] for line in lines])
    if not curves:
        return False
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, (method, seeds) in enumerate(curves.items()):
        whole = list(zip(*seeds, strict=False))  # epochs that every seed has
        epochs = range(1, len(whole) + 1)
        style = ("-", "--", ":")[place // 10 % 3]  # ten colours, then the same in another dash
        (line,) = axes.plot(epochs, [sum(values) / len(values) for values in whole], style, marker=".", label=method)
        axes.fill_between(
            epochs, list(map(min, whole)), list(map(max, whole)), color=line.get_color(), alpha=0.15, lw=0
        )
    band = "" if len(next(iter(curves.values()))) == 1 else "; band: range over seeds"
    axes.set(xlabel="epoch", ylabel="training loss on the labels", title=f"{generation}{band}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=2, fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return True


def draw_history(run: Path) -> Path | None:
    """Write `training.png` into a run folder: loss, its parts and the learning rate by epoch; None without any."""
    lines = history(run)
    if not lines:
        return None
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

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
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path
