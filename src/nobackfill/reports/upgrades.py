"""An assessed upgrade as a table and as sentences."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nobackfill.errors import visible
from nobackfill.evaluation import Interval, Upgrade
from nobackfill.evaluation.assess import BOUND
from nobackfill.evaluation.scores import MAIN, RANKING, SCORES, title
from nobackfill.reports.tables import print_table

TITLES = {
    "old/old": "status quo",
    "new/old": "nothing backfilled",
    "new/new": "all backfilled",
    BOUND: "independent, full backfill",
}
WORST_CLASSES = 3
FALLS = ", and no rule was found under which the scores never fall: switch when all is backfilled"


def upgrade_table(upgrade: Upgrade) -> Table:
    """A row a cell, scores in percent."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("", "query/gallery"):
        table.add_column(heading, no_wrap=True)
    for score in SCORES.values():
        table.add_column(f"{score.title} %", justify="right", no_wrap=True)
    for cell, scores in upgrade.scores.items():
        searched = "new/new" if cell == BOUND else cell
        table.add_row(TITLES[cell], searched, *(f"{100 * scores[key].mean:.1f}" for key in SCORES))
    return table


def upgrade_sentences(upgrade: Upgrade) -> list[str]:
    """What the table does not say, most important last: the verdict."""
    lines = []
    if gain := upgrade.gain[MAIN]:
        lines.append(
            f"Update gain on {title(MAIN)}: {gain.mean:.2f} [{gain.low:.2f}, {gain.high:.2f}]; 1 is a full backfill."
        )
    if loss := upgrade.loss[MAIN]:
        lines.append(f"Self-accuracy loss on {title(MAIN)}: {loss.points()} points below the independent model.")
    for cell, flips in upgrade.flips.items():
        lines.append(
            f"Changed top-1 results, {cell}: {_percent(flips.positive)} of the queries from wrong to right, "
            f"{_percent(flips.negative)} from right to wrong."
        )
    if curve := upgrade.curve:
        middle = len(curve.fractions) // 2
        lines.append(
            f"Backfilling in random order, {title(MAIN)}: {100 * curve.scores[MAIN][0]:.1f} at 0 %, "
            f"{100 * curve.scores[MAIN][middle]:.1f} with {100 * curve.fractions[middle]:.0f} %, "
            f"{100 * curve.scores[MAIN][-1]:.1f} with all of it; area {100 * curve.area[MAIN]:.1f}; old and new scores "
            f"compared by {curve.rule}{FALLS if curve.may_fall else ''}."
        )
    fallen = [line for line in upgrade.classes if line.change() < 0]
    if fallen:
        worst = ", ".join(f"{line.name} {100 * line.change():+.1f}" for line in fallen[:WORST_CLASSES])
        classes = f"{len(fallen)} of {len(upgrade.classes)} classes"
        lines.append(f"{classes} lose {title(RANKING)} in the old gallery, most of all: {worst}.")
    if upgrade.without_match:
        lines.append(f"{upgrade.without_match} queries without a match in the gallery are left out.")
    seeds = f" and {upgrade.seeds} seeds" if upgrade.seeds > 1 else ""
    lines.append(f"Brackets: 95 % intervals, paired bootstrap over {upgrade.queries} queries{seeds}.")
    lines.append(f"Verdict: {upgrade.verdict.decision}.")
    return [*lines, *(f"  {reason}" for reason in upgrade.verdict.reasons)]


def print_upgrade(upgrade: Upgrade, old: str, new: str) -> None:
    """The table and the sentences."""
    print(f"old: {visible(old)}\nnew: {visible(new)}")
    print_table(upgrade_table(upgrade))
    for line in upgrade_sentences(upgrade):
        print(visible(line))


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} %"
