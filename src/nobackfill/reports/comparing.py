"""Two reports beside each other: the cells that both have, score by score, and what each of them decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from nobackfill.errors import DataError
from nobackfill.evaluation.scores import AGREEMENT, SCORES, title
from nobackfill.reports.document import Report
from nobackfill.reports.summary import Summary, summarise_report

UNPAIRED = (
    "Differences are second minus first, in points; the reports may rest on other queries, so no interval is given."
)
Cells = Mapping[tuple[str, str], Mapping[str, float]]
"""What was searched with (a method, or a map; empty for a single upgrade), and query/gallery → score → mean."""


@dataclass(frozen=True)
class ComparedCell:
    """One score of one cell in both reports, in 0–1."""

    name: str
    searched: str
    score: str
    first: float
    second: float


@dataclass(frozen=True)
class ReportComparison:
    """Two reports compared.

    Attributes:
        names: of the reports.
        summaries: of each; None where it compares nothing.
        cells: what both have.
        missing: cells that only one of them has, in words.
    """

    names: tuple[str, str]
    summaries: tuple[Summary | None, Summary | None]
    cells: tuple[ComparedCell, ...]
    missing: tuple[str, ...]

    def rows(self) -> list[list[str]]:
        """A line a cell and score: name, query/gallery, score, first and second in %, difference in points."""
        return [
            [
                each.name,
                each.searched,
                title(each.score),
                f"{100 * each.first:.1f}",
                f"{100 * each.second:.1f}",
                f"{100 * (each.second - each.first):+.1f}",
            ]
            for each in self.cells
        ]

    def sentences(self) -> list[str]:
        """The decisions of both, then what the table lacks."""
        decisions = [
            f"{name}: {summary.decision if summary else 'There is no upgrade to assess.'}"
            for name, summary in zip(self.names, self.summaries, strict=True)
        ]
        return [*decisions, UNPAIRED, *self.missing]


def compare_reports(first: Report, second: Report, names: tuple[str, str]) -> ReportComparison:
    """Cell by cell; an upgrade's cells are matched by their role, whatever the models are called.

    Raises:
        DataError: for reports that have no cell in common.
    """
    ours, theirs = _cells(first), _cells(second)
    common = [cell for cell in ours if cell in theirs]
    compared = tuple(
        ComparedCell(*cell, score, value, theirs[cell][score])
        for cell in common
        for score, value in ours[cell].items()
        if score in theirs[cell]
    )
    if not compared:
        raise DataError(
            f"{names[0]} and {names[1]} have no cell in common: found {_listed(ours)} and {_listed(theirs)}; "
            "compare reports of the same command"
        )
    missing = [
        f"Only in {name}: {_listed(only)}."
        for name, only in zip(
            names,
            ({cell for cell in ours if cell not in theirs}, {cell for cell in theirs if cell not in ours}),
            strict=True,
        )
        if only
    ]
    return ReportComparison(names, (summarise_report(first), summarise_report(second)), compared, tuple(missing))


def _cells(report: Report) -> Cells:
    if report.fit is not None:
        return {(each.name, each.searched): {**each.scores, AGREEMENT: each.overlap} for each in report.fit.results}
    if report.upgrades:
        several = len({(each.old, each.new) for each in report.upgrades}) > 1
        return {
            (
                " ".join(filter(None, (each.method, f"{each.old} → {each.new}" if several else ""))),
                cell,
            ): {score: value.mean for score, value in scores.items()}
            for each in report.upgrades
            for cell, scores in each.result.scores.items()
        }
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for search in report.searches:
        own = found.setdefault((search.method or "", f"{search.query}/{search.gallery}"), {})
        for score in SCORES:
            if score in search.scores:
                own.setdefault(score, []).append(search.scores[score])
    return {cell: {score: fmean(values) for score, values in scores.items()} for cell, scores in found.items()}


def _listed(cells: Cells | set[tuple[str, str]], most: int = 5) -> str:
    names = [" ".join(filter(None, cell)) for cell in sorted(cells)]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
