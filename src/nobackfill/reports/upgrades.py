"""An upgrade's judgement as a table, as sentences, and as plain values for JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nobackfill.evaluation import Difference, Interval, Upgrade
from nobackfill.reports.figures import SCORES
from nobackfill.reports.tables import print_table

TITLES = {
    "old/old": "status quo",
    "new/old": "nothing backfilled",
    "new/new": "all backfilled",
    "independent": "independent, all backfilled",
}
WORST_CLASSES = 3


def plain(value: Any) -> Any:
    """Dataclasses, tuples and NaN as what JSON has: mappings, lists and null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {**found, "word": value.word} if isinstance(value, Difference) else found
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def upgrade_table(upgrade: Upgrade) -> Table:
    """A row a cell, scores in percent."""
    table = Table(box=SIMPLE_HEAD)
    for title in ("", "query/gallery"):
        table.add_column(title, no_wrap=True)
    for title in SCORES.values():
        table.add_column(f"{title} %", justify="right", no_wrap=True)
    for cell, scores in upgrade.scores.items():
        searched = "new/new" if cell == "independent" else cell
        table.add_row(TITLES[cell], searched, *(f"{100 * scores[score].mean:.1f}" for score in SCORES))
    return table


def upgrade_sentences(upgrade: Upgrade) -> list[str]:
    """What the table does not say, most important last: the verdict."""
    lines = []
    if gain := upgrade.gain["top1"]:
        lines.append(f"Update gain on top-1: {gain.mean:.2f} [{gain.low:.2f}, {gain.high:.2f}]; 1 is a full backfill.")
    if loss := upgrade.loss["top1"]:
        lines.append(f"Self-accuracy loss on top-1: {loss.points()} points below the independent model.")
    for cell, flips in upgrade.flips.items():
        lines.append(
            f"First answers that changed, {cell}: {_percent(flips.positive)} of the queries from wrong to right, "
            f"{_percent(flips.negative)} from right to wrong."
        )
    if curve := upgrade.curve:
        middle = len(curve.shares) // 2
        lines.append(
            f"Backfilling at random, top-1: {100 * curve.scores['top1'][0]:.1f} with nothing, "
            f"{100 * curve.scores['top1'][middle]:.1f} with {100 * curve.shares[middle]:.0f} %, "
            f"{100 * curve.scores['top1'][-1]:.1f} with all of it; area {100 * curve.area['top1']:.1f}."
        )
    fallen = [line for line in upgrade.classes if line.mean_ap["new/old"] < line.mean_ap["old/old"]]
    if fallen:
        worst = ", ".join(
            f"{line.name} {100 * (line.mean_ap['new/old'] - line.mean_ap['old/old']):+.1f}"
            for line in fallen[:WORST_CLASSES]
        )
        lines.append(
            f"{len(fallen)} of {len(upgrade.classes)} classes lose mAP in the old gallery, most of all: {worst}."
        )
    if upgrade.without_match:
        lines.append(f"{upgrade.without_match} queries have no match in the gallery; they are left out.")
    seeds = f" and {upgrade.seeds} seeds" if upgrade.seeds > 1 else ""
    lines.append(f"Brackets: 95 % intervals, paired bootstrap over {upgrade.queries} queries{seeds}.")
    lines.append(f"Verdict: {upgrade.verdict.word}.")
    return [*lines, *(f"  {reason}" for reason in upgrade.verdict.reasons)]


def print_upgrade(upgrade: Upgrade, old: str, new: str) -> None:
    """The table and the sentences."""
    print(f"old: {old}\nnew: {new}")
    print_table(upgrade_table(upgrade))
    for line in upgrade_sentences(upgrade):
        print(line)


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} %"
