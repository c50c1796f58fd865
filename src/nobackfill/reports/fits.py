"""Fitted maps: a table, and a picture of what dimensions buy."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nobackfill.evaluation.candidates import CandidateResult
from nobackfill.evaluation.comparison import decisive
from nobackfill.evaluation.scores import FIT_SCORES, RANKING, title
from nobackfill.files import atomic_file
from nobackfill.reports.document import FitSection
from nobackfill.reports.tables import cell


def fit_table(fit: FitSection) -> Table:
    """A row a way of searching, in percent; the change against the status quo with its 95 % interval."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("", "query/gallery"):
        table.add_column(heading, no_wrap=True)
    scores = list(FIT_SCORES) if fit.labelled else []
    titles = ["values", *(f"{title(score)} %" for score in scores), _overlap(fit)]
    for heading in [*titles, f"{title(RANKING)} against the status quo" if fit.labelled else "against the status quo"]:
        table.add_column(heading, justify="right")
    for heading in ("", "chosen"):
        table.add_column(heading)
    for each in fit.results:
        values = [f"{100 * each.scores[score]:.1f}" for score in scores]
        against = each.change[decisive(each.change)[-1]].points() if each.change else ""
        cells = [cell(each.name), each.searched, str(each.dim), *values, f"{100 * each.overlap:.1f}", against]
        table.add_row(*cells, each.word, cell(each.choice))
    return table


def draw_trade(fit: FitSection, path: Path) -> bool:
    """BT² at several k and C: total dimension against new/old and new/new; False if there is one setting only."""
    swept = [each for each in fit.results if "_k" in each.name]
    if len(swept) < 4:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()

    def score(each: CandidateResult) -> float:
        return 100 * each.scores.get(RANKING, each.overlap)

    # A name is `METHOD_kK_cC`.
    settings = [(each.name.rpartition("_k")[0], each.name.rpartition("_c")[2]) for each in swept]
    lines = sorted(set(settings), key=lambda line: (line[0], float(line[1])))
    total = {each.name: each.dim for each in swept if each.searched == "new/new"}
    for number, (method, scale) in enumerate(lines):
        for searched, style in (("new/old", "o-"), ("new/new", "s--")):
            own = zip(settings, swept, strict=True)
            chosen = [each for line, each in own if line == (method, scale) and each.searched == searched]
            chosen.sort(key=lambda each: total[each.name])
            x, y = [total[each.name] for each in chosen], [score(each) for each in chosen]
            axes.plot(x, y, style, color=f"C{number}", label=f"{method}, {searched}, C = {scale}", markersize=4)
    for each, style in ((fit.results[0], ":"), (fit.results[1], "-.")):
        axes.axhline(score(each), color="0.4", linestyle=style, label=f"{each.name} ({each.searched})")
    axes.set_xlabel("dimensions of a new vector, d + k")
    axes.set_ylabel(f"{title(RANKING)} %" if fit.labelled else _overlap(fit))
    axes.legend(fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return True


def _overlap(fit: FitSection) -> str:
    return f"overlap with full backfill, top {fit.results[0].nearest} (%)"
