"""Line charts as the numbers a template draws: an SVG in the page's own colours, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
TICKS = 6  # intervals at most
LARGEST = 1e100  # beyond it the axes have no marks
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class ChartLine:
    """A line's name and its points as SVG writes them."""

    name: str
    path: str


@dataclass(frozen=True)
class Chart:
    """All that the template needs, in the units of its `viewBox`."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[ChartLine]
    level: float | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(
    title: str, x_label: str, y_label: str, series: Mapping[str, Points], level: float | None = None
) -> Chart | None:
    """A chart of named lines, and a dashed level if given; None where there is nothing to draw.

    Args:
        title: for those who do not see it.
        x_label: what the x values are.
        y_label: what the y values are.
        series: name → (x, y) pairs; pairs that are not finite, or too large to draw, are left out.
        level: a y value to compare with.
    """
    finite = {
        name: [(x, y) for x, y in points if abs(x) < LARGEST and abs(y) < LARGEST] for name, points in series.items()
    }
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return None
    xs = [x for points in finite.values() for x, _ in points]
    ys = [y for points in finite.values() for _, y in points] + ([] if level is None else [level])
    x_marks, y_marks = axis_ticks(min(xs), max(xs)), axis_ticks(min(ys), max(ys))
    low_x, high_x = min(*xs, x_marks[0]), max(*xs, x_marks[-1])
    low_y, high_y = min(*ys, y_marks[0]), max(*ys, y_marks[-1])

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (x - low_x) / (high_x - low_x), 1)

    def down(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y - low_y) / (high_y - low_y), 1)

    return Chart(
        title=title,
        x_label=x_label,
        y_label=y_label,
        x_ticks=[Tick(across(x), f"{x:g}") for x in x_marks],
        y_ticks=[Tick(down(y), f"{y:g}") for y in y_marks],
        lines=[
            ChartLine(name, " ".join(f"{across(x)},{down(y)}" for x, y in points)) for name, points in finite.items()
        ],
        level=None if level is None else down(level),
    )


def axis_ticks(low: float, high: float) -> list[float]:
    """A few round numbers from at most `low` to at least `high`."""
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):  # one value, to the eye
        low, high = low - 0.5, high + 0.5
    ticks = MaxNLocator(TICKS, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
    return [float(tick) for tick in ticks]
