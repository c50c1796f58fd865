"""What `nobackfill fit` found: a table, JSON, and a picture of what dimensions buy."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from nobackfill.files import atomic_file
from nobackfill.maps import Fitted, Pairs
from nobackfill.maps.judging import Line
from nobackfill.reports.figures import to_json
from nobackfill.reports.upgrades import plain


def fit_table(found: Fitted) -> Table:
    """A row a way of searching, in percent; the change against the status quo with its 95 % interval."""
    labelled = found.lines[0].top1 is not None
    table = Table(box=SIMPLE_HEAD)
    for title in ("", "query/gallery"):
        table.add_column(title, no_wrap=True)
    titles = ["values", *(["top-1 %", "top-10 %", "mAP %"] if labelled else []), "of a full backfill's ten %"]
    for title in [*titles, "mAP against doing nothing" if labelled else "against doing nothing"]:
        table.add_column(title, justify="right")
    for title in ("", "chosen"):
        table.add_column(title)
    for line in found.lines:
        scores = [f"{100 * value:.1f}" for value in (line.top1, line.top10, line.mean_ap) if value is not None]
        change = (line.change or {}).get("mean_ap" if labelled else "overlap")
        against = change.points() if change else ""
        cells = [escape(line.name), line.searched, str(line.dim), *scores, f"{100 * line.overlap:.1f}", against]
        table.add_row(*cells, line.word, escape(line.choice))
    return table


def fit_document(found: Fitted, pairs: Pairs) -> str:
    """All of it as JSON text."""
    lines = [{**plain(line), "word": line.word} for line in found.lines]
    settings = {name: str(value) for name, value in pairs.__dict__.items()}
    figures = {"lines": lines, "advice": plain(found.advice), "best": found.best, "dropped": found.dropped}
    return to_json([], generations=[], fit={**figures, "gallery_was_fitted_on": found.seen}, settings=settings)


def draw_trade(found: Fitted, path: Path) -> bool:
    """BT² at several k and C: total dimension against new/old and new/new; False if there is one setting only."""
    swept = [line for line in found.lines if "_k" in line.name]
    if len(swept) < 4:
        return False
    from matplotlib.figure import Figure  # noqa: PLC0415

    labelled = swept[0].mean_ap is not None
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()

    def score(line: Line) -> float:
        return 100 * (line.overlap if line.mean_ap is None else line.mean_ap)

    scales = sorted({line.name.rpartition("_c")[2] for line in swept}, key=float)
    total = {line.name: line.dim for line in swept if line.searched == "new/new"}
    for number, scale in enumerate(scales):
        for searched, style in (("new/old", "o-"), ("new/new", "s--")):
            chosen = [line for line in swept if line.searched == searched and line.name.endswith(f"_c{scale}")]
            chosen.sort(key=lambda line: total[line.name])
            x, y = [total[line.name] for line in chosen], [score(line) for line in chosen]
            axes.plot(x, y, style, color=f"C{number}", label=f"{searched}, C = {scale}", markersize=4)
    for line, style in ((found.lines[0], ":"), (found.lines[1], "-.")):
        axes.axhline(score(line), color="0.4", linestyle=style, label=f"{line.name} ({line.searched})")
    axes.set_xlabel("values of a new vector, d + k")
    axes.set_ylabel("mAP %" if labelled else "of a full backfill's ten %")
    axes.legend(fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return True
