"""The numbers of a lineage of generations: every method's lower triangle of searches, over its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nobackfill.config import INDEPENDENT
from nobackfill.evaluation import MeanStd, average_compatibility, average_score, self_accuracy_loss, update_gain
from nobackfill.evaluation.scores import SCORES
from nobackfill.reports.document import CellSummary, LineageSummary, Report, Search, UpgradeSection

Cells = dict[tuple[str, str], dict[int, float]]
"""(query, gallery) → seed → score."""
Pair = tuple[str, str, str]
"""Method, query and gallery."""


def methods_of(searches: Iterable[Search]) -> list[str]:
    """The methods in the order they were evaluated, independent first."""
    return list(dict.fromkeys(search.method for search in searches if search.method is not None))


def seeds_of(searches: Sequence[Search]) -> dict[str, int]:
    """Method → how many training runs of it there are."""
    return {method: len(_seeds(searches, method)) for method in methods_of(searches)}


def triangle(searches: Sequence[Search], method: str, generations: Sequence[str], score: str) -> Cells:
    """One method's cells, of the seeds it has; the first generation's own cell is every method's."""
    own, cells = _seeds(searches, method), Cells()
    for search in sorted(searches, key=lambda search: search.seed or 0):
        first = search.query == search.gallery == generations[0]
        if search.method == (INDEPENDENT if first else method) and (search.seed or 0) in own:
            cells.setdefault((search.query, search.gallery), {})[search.seed or 0] = search.scores[score]
    return cells


def summarise_cells(
    searches: Sequence[Search], generations: Sequence[str], upgrades: Sequence[UpgradeSection] = ()
) -> list[CellSummary]:
    """Mean and deviation of each score, method and cell, with its update gain or self-accuracy loss.

    An assessed upgrade without a gain has none here: its upper bound is not clearly above the status quo.
    """
    unclear = {
        (each.method, each.new, each.old, score) for each in upgrades for score in SCORES if not each.result.gain[score]
    }
    lines = []
    for score in SCORES:
        bounds = triangle(searches, INDEPENDENT, generations, score)
        for method in methods_of(searches):
            cells = triangle(searches, method, generations, score)
            for (query, gallery), values in cells.items():
                own = query == gallery
                gained = not own and (method, query, gallery, score) not in unclear
                lines.append(
                    CellSummary(
                        score=score,
                        method=method,
                        query=query,
                        gallery=gallery,
                        value=MeanStd.of(list(values.values())),
                        update_gain=_gain(cells, bounds, query, gallery) if gained else None,
                        self_accuracy_loss=_loss(cells, bounds, query) if own else None,
                    )
                )
    return lines


def summarise_lineages(searches: Sequence[Search], generations: Sequence[str]) -> list[LineageSummary]:
    """AC and AM of each score and method."""
    lines = []
    for score in SCORES:
        for method in methods_of(searches):
            cells = triangle(searches, method, generations, score)
            matrices = [
                [
                    [cells[query, gallery][seed] for gallery in generations[: i + 1]]
                    for i, query in enumerate(generations)
                ]
                for seed in sorted(_seeds(searches, method))
            ]
            lines.append(
                LineageSummary(
                    score=score,
                    method=method,
                    compatibility=MeanStd.of(list(map(average_compatibility, matrices))),
                    mean=MeanStd.of(list(map(average_score, matrices))),
                )
            )
    return lines


def by_cell(report: Report) -> dict[Pair, dict[str, CellSummary]]:
    """Method, query and gallery → score → its summary; the first generation's own cell once, as `independent`'s."""
    cells: dict[Pair, dict[str, CellSummary]] = {}
    for line in report.cells:
        if line.query != report.generations[0] or line.method == INDEPENDENT:
            cells.setdefault((line.method, line.query, line.gallery), {})[line.score] = line
    return cells


def unequal_seeds(report: Report) -> bool:
    """Whether some methods have more seeds than others."""
    return len(set(report.seeds.values())) > 1


def seeds_in_words(report: Report) -> str:
    """How many seeds there are, such as `10 seeds (3 of bct)`."""
    most = max(report.seeds.values(), default=1)
    fewer = ", ".join(f"{count} of {method}" for method, count in report.seeds.items() if count != most)
    return ("one seed" if most == 1 else f"{most} seeds") + (f" ({fewer})" if fewer else "")


def _seeds(searches: Iterable[Search], method: str) -> set[int]:
    return {search.seed or 0 for search in searches if search.method == method}


def _gain(cells: Cells, bounds: Cells, query: str, gallery: str) -> MeanStd:
    own, before, bound = cells[query, gallery], cells[gallery, gallery], bounds[query, query]
    return MeanStd.of([update_gain(value, before[seed], bound[seed]) for seed, value in own.items()])


def _loss(cells: Cells, bounds: Cells, query: str) -> MeanStd:
    bound = bounds[query, query]
    return MeanStd.of([self_accuracy_loss(value, bound[seed]) for seed, value in cells[query, query].items()])
