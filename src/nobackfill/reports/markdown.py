"""A report as Markdown tables, for a paper's draft or a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nobackfill.errors import DataError, visible
from nobackfill.evaluation import Difference
from nobackfill.evaluation.assess import BOUND
from nobackfill.evaluation.comparison import decisive
from nobackfill.evaluation.scores import DECISIVE, FIT_SCORES, MAIN, title
from nobackfill.reports.comparing import ReportComparison
from nobackfill.reports.document import FitSection, RankingSection, Report, UpgradeSection
from nobackfill.reports.lineage import by_cell, methods_of, unequal_seeds
from nobackfill.reports.summary import Summary, summarise_report
from nobackfill.reports.upgrades import TITLES

LINK = re.compile(r"!(?=\[)|\](?=[(\[:])")
"""Where a backslash stops a picture or link; brackets of intervals stay as they are."""


def build_markdown(report: Report, origin: str, against: str | None = None) -> str:
    """Tables as text: every search; of a scenario with deviations over seeds, and the methods compared with one.

    Args:
        report: as `read_report` returns it.
        origin: where it is from, for messages.
        against: the method to compare a scenario's others with; by default the best of each table.

    Raises:
        DataError: if there is no such method.
    """
    methods = methods_of(report.searches) if report.rankings else []
    if against is not None and against not in methods:
        known = f"one of {', '.join(methods)}" if methods else "none: it does not compare methods of a scenario"
        raise DataError(f"--against {against}: {origin}: expected {known}")
    if methods:
        rankings = [each for each in report.rankings if each.score in DECISIVE]
        tables = [_scenario(report), *(_ranking(each, against) for each in rankings)]
    else:
        tables = (
            [_fit(report.fit)]
            if report.fit
            else [*(_upgrade(each, report.scores()) for each in report.upgrades), _searches(report)]
        )
    summary = summarise_report(report)
    return "\n".join([_summary(summary), *tables] if summary else tables)


def build_markdown_comparison(comparison: ReportComparison) -> str:
    """Two reports beside each other: the decision of each, and a table of the cells that both have."""
    titles = ["method", "query/gallery", "score", *(f"{name} %" for name in comparison.names), "difference"]
    lines = "".join(f"- {_cell(line)}\n" for line in comparison.sentences())
    return f"{lines}\n{_table(titles, comparison.rows())}"


def _summary(summary: Summary) -> str:
    """The first screen of the page, as a list."""
    heading = f"**{_cell(summary.decision)}** {_cell(summary.name)}".rstrip()
    points = [f"Gained now: {line}" for line in summary.now]
    points += [
        f"{100 * each.fraction:.0f} % backfilled: {title(MAIN)} {100 * each.score:.1f} %"
        + ("" if each.added is None else f", {100 * each.added:+.1f} points by this quarter")
        for each in summary.quarters
    ]
    points += [*summary.backfill, *(f"Worse: {line}" for line in summary.losses)]
    points += [f"Alternative: {line}" for line in summary.others]
    return "\n".join([heading, "", *(f"- {_cell(line)}" for line in points)]) + "\n"


def _upgrade(section: UpgradeSection, known: Sequence[str]) -> str:
    """An upgrade's cells with their intervals, the upper bound among them, and the changes that decide."""
    result = section.result
    scores = [score for score in known if all(score in values for values in result.scores.values())]
    lines = []
    for cell, values in result.scores.items():
        shown = [
            f"{100 * values[score].mean:.1f} [{100 * values[score].low:.1f}, {100 * values[score].high:.1f}]"
            for score in scores
        ]
        changes = [text for score in DECISIVE for text in _change(result.change.get(cell, {}).get(score))]
        lines.append([TITLES.get(cell, cell), "new/new" if cell == BOUND else cell, *shown, *changes])
    changed = [text for score in DECISIVE for text in (f"{title(score)} change", "")]
    return _table(["", "query/gallery", *(f"{title(score)} %" for score in scores), *changed], lines)


def _scenario(report: Report) -> str:
    first, scores, counted = report.generations[0], report.scores(), unequal_seeds(report)
    change = {}
    for each in report.upgrades:
        for cell, gallery in (("new/old", each.old), ("new/new", each.new)):
            change[each.method, each.new, gallery] = each.result.change.get(cell)
    lines = []
    for (method, query, gallery), values in by_cell(report).items():
        seeds = [str(values[MAIN].value.seeds)] if counted else []
        means = [values[score].value.text(100) for score in scores]
        if query == first:  # one model for every method
            lines.append(["status quo", f"{query}/{gallery}", *means, *[""] * (len(DECISIVE) + 2), *seeds])
            continue
        changes = change.get((method, query, gallery))  # of steps from a generation to the next
        points = ["" if changes is None else changes[score].points() for score in DECISIVE]
        gain, loss = values[MAIN].update_gain, values[MAIN].self_accuracy_loss
        texts = [gain.text(digits=2, sign="+") if gain else "", loss.text(100, sign="+") if loss else ""]
        lines.append([method, f"{query}/{gallery}", *means, *points, *texts, *seeds])
    titles = ["method", "query/gallery", *map(title, scores), *(f"{title(score)} change" for score in DECISIVE)]
    return _table([*titles, "update gain", "self-accuracy loss", *(["seeds"] if counted else [])], lines)


def _ranking(section: RankingSection, against: str | None) -> str:
    ranking, base = section.ranking, against or section.ranking.methods[0].method
    counted = len({each.seeds for each in ranking.methods}) > 1
    lines = []
    for each in ranking.methods:
        lead = None if each.method == base else ranking.difference(each.method, base)
        seeds = [str(each.seeds)] if counted else []
        lines.append([each.method, f"{100 * each.score:.1f}", *_change(lead), *seeds])
    heading = f"{section.query}/{section.gallery}, {title(section.score)}"
    return _table([heading, "%", f"against {base}", "", *(["seeds"] if counted else [])], lines)


def _change(lead: Difference | None) -> tuple[str, str]:
    return ("", "") if lead is None else (lead.points(), lead.decision)


def _searches(report: Report) -> str:
    scores = report.scores()
    lines = [
        [each.query, each.gallery, *(f"{100 * each.scores[score]:.1f}" for score in scores)] for each in report.searches
    ]
    return _table(["query", "gallery", *map(title, scores)], lines)


def _fit(fit: FitSection) -> str:
    scores = [score for score in FIT_SCORES if all(score in each.scores for each in fit.results)]
    lines = []
    for each in fit.results:
        shown = [*(each.scores[score] for score in scores), each.overlap]
        change = each.change[decisive(each.change)[-1]].points() if each.change else ""
        cells = [f"{100 * value:.1f}" for value in shown]
        lines.append([each.name, each.searched, str(each.dim), *cells, change, each.word])
    compared = title(DECISIVE[-1]) if fit.labelled else "overlap"
    titles = [
        "",
        "query/gallery",
        "values",
        *map(title, scores),
        f"overlap at {fit.results[0].nearest}",
        f"{compared} against the status quo",
        "",
    ]
    return "".join([_table(titles, lines), "\n" if fit.kinds else "", *(f"- {_cell(line)}\n" for line in fit.kinds)])


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in (titles, ["---"] * len(titles), *lines))


def _cell(text: str) -> str:
    """A text of unknown origin in a table: it ends no cell, and is no markup, link or picture."""
    plain = visible(" ".join(text.split())).replace("\\", "\\\\").replace("|", "\\|")
    return LINK.sub(r"\g<0>\\", plain.replace("&", "&amp;").replace("<", "&lt;"))
