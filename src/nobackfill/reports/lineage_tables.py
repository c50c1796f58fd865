"""A scenario on the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nobackfill.config import INDEPENDENT
from nobackfill.evaluation import MeanStd
from nobackfill.evaluation.scores import MAIN, PAIR_SCORES, title
from nobackfill.reports.document import Report
from nobackfill.reports.lineage import by_cell, methods_of, triangle, unequal_seeds
from nobackfill.reports.tables import cell


def lineage_table(report: Report) -> Table:
    """A row a method and cell: scores in percent; update gain and self-accuracy loss where they belong."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    table.add_column("query/gallery", no_wrap=True)
    scores, counted = report.scores(), unequal_seeds(report)
    titles = [*(f"{title(score)} %" for score in scores), "update gain", "self-acc. loss"]
    for heading in [*titles, *(["seeds"] if counted else [])]:
        table.add_column(heading, justify="right", no_wrap=True)
    before = ""
    for (method, query, gallery), lines in by_cell(report).items():
        first = query == report.generations[0]
        if before and method != before and not first:
            table.add_section()
        values = [lines[score].value.text(100) for score in scores]
        gain, loss = lines[MAIN].update_gain, None if first else lines[MAIN].self_accuracy_loss
        name = "status quo" if first else method if method != before else ""
        seeds = [str(lines[MAIN].value.seeds)] if counted else []
        cells = [gain.text(digits=2, sign="+") if gain else "", loss.text(100, sign="+") if loss else ""]
        table.add_row(cell(name), cell(f"{query}/{gallery}"), *values, *cells, *seeds, end_section=first)
        before = "" if first else method
    return table


def pair_table(report: Report) -> Table | None:
    """Recall and reciprocal rank of pairs, by which searches of documents are usually told; None for other samples."""
    if not all(key in search.scores for search in report.searches for key in PAIR_SCORES):
        return None
    table = Table(box=SIMPLE_HEAD)
    for heading in ("method", "query/gallery", *(f"{title(key)} %" for key in PAIR_SCORES)):
        table.add_column(heading, justify="right" if "%" in heading else "left", no_wrap=True)
    first = report.generations[0]
    for method in methods_of(report.searches):
        scores = [triangle(report.searches, method, report.generations, key) for key in PAIR_SCORES]
        for query, gallery in scores[0]:
            if query == first and method != INDEPENDENT:
                continue  # the first generation's own cell stands once
            means = [MeanStd.of(list(cells[query, gallery].values())).text(100) for cells in scores]
            table.add_row(cell("status quo" if query == first else method), cell(f"{query}/{gallery}"), *means)
    return table


def compatibility_table(report: Report) -> Table:
    """AC and AM of each method: of use for three generations and more."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("method", f"AC ({title(MAIN)})", f"AM ({title(MAIN)}) %"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for line in report.lineages:
        if line.score == MAIN:
            table.add_row(cell(line.method), line.compatibility.text(digits=2), line.mean.text(100))
    return table
