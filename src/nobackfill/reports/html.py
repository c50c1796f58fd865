"""The report: one HTML file that opens from disk, needs no network, and admits no script but its own.

Everything it shows comes from a JSON file that may have been written by anyone: texts are escaped by the template,
pictures must be PNG or JPEG data addresses, and the page's own policy refuses everything else.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nobackfill.errors import visible
from nobackfill.evaluation import Difference
from nobackfill.evaluation.scores import DECISIVE, FIT_SCORES, MAIN, RANKING, title
from nobackfill.evaluation.verdict import Decision
from nobackfill.reports.charts import Chart, chart
from nobackfill.reports.comparing import UNPAIRED, ReportComparison
from nobackfill.reports.document import RankingSection, Report, Search, UpgradeSection
from nobackfill.reports.lineage import methods_of
from nobackfill.reports.rankings import one_seed
from nobackfill.reports.summary import summarise_report
from nobackfill.reports.upgrades import TITLES

PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")
TEMPLATES = Path(__file__).parent / "templates"
TONES: Mapping[Decision, str] = {"ship": "good", "use it": "good", "do not ship": "bad", "do nothing": "bad"}
"""Of a decision, as a class of the style sheet; others are open."""


@dataclass(frozen=True)
class MatrixCell:
    """Mean scores over the seeds, and how far the main one lies from the status quo, in −1 … 1."""

    scores: Mapping[str, float]
    change: float


@dataclass(frozen=True)
class Matrix:
    """One method's triangle: query generation → a cell a gallery generation."""

    method: str
    lines: Mapping[str, Sequence[MatrixCell | None]]


@dataclass(frozen=True)
class RankingTable:
    """A ranking with a line a method: its differences to the methods below it, None where it is not the higher one."""

    section: RankingSection
    one_seed: bool
    lines: Sequence[Sequence[Difference | None]]


def build_report(report: Report, origin: str) -> str:
    """The page as text.

    Args:
        report: as `read_report` returns it.
        origin: where it is from, for the page's head.
    """
    environment = _environment()
    fit_scores = [
        score for score in FIT_SCORES if report.fit and all(score in each.scores for each in report.fit.results)
    ]
    summary = summarise_report(report)
    return environment.get_template("report.html.jinja").render(
        report=report,
        summary=summary,
        tone=TONES.get(summary.verdict, "open") if summary else "",
        origin=origin,
        upgrades=[(each, _curve_chart(each)) for each in report.upgrades],
        matrices=_matrices(report.searches, report.generations),
        rankings=[_ranking(each) for each in report.rankings if each.score in DECISIVE],
        training=_training_chart(report.training, (report.generations or [""])[-1]),
        scores=report.scores(),
        fit_scores=fit_scores,
        decisive=DECISIVE,
        main=MAIN,
        ranking_score=RANKING,
        titles=TITLES,
    )


def build_comparison(comparison: ReportComparison) -> str:
    """The page of two reports beside each other, as text."""
    sides = [
        (name, summary, TONES.get(summary.verdict, "open") if summary else "open")
        for name, summary in zip(comparison.names, comparison.summaries, strict=True)
    ]
    headings = ["method", "query/gallery", "score", *(f"{name} %" for name in comparison.names), "difference"]
    return (
        _environment()
        .get_template("comparison.html.jinja")
        .render(comparison=comparison, sides=sides, headings=headings, unpaired=UNPAIRED)
    )


def _environment() -> Environment:
    """Templates whose texts are escaped and visible, with the page's one script and its digest."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_visible
    )
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(script=script, style=style, script_hash=digest)
    environment.filters.update(percent=_percent, points=_points, picture=_picture, title=title, breakable=_breakable)
    return environment


def _visible(value: object) -> object:
    """What the template prints; texts of its own (`Markup`) stay as they are."""
    return visible(value, keep="\n\t") if type(value) is str else value


def _breakable(value: str) -> Markup:
    """A name that may be a path: lines break behind its slashes."""
    return Markup("/<wbr>").join(visible(value, keep="\n\t").split("/"))  # which escapes what it joins


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _picture(value: str | None) -> str | None:
    return value if value is not None and PICTURE.fullmatch(value) else None


def _curve_chart(upgrade: UpgradeSection) -> Chart | None:
    curve = upgrade.result.curve
    if curve is None:
        return None
    percents = [100 * fraction for fraction in curve.fractions]
    series = {
        title(score): list(zip(percents, (100 * value for value in curve.scores[score]), strict=True))
        for score in DECISIVE
    }
    level = 100 * upgrade.result.scores["old/old"][MAIN].mean
    return chart("Backfilling curve", "gallery backfilled, %", "score, %", series, level)


def _training_chart(training: Mapping[str, Sequence[Mapping[str, float]]], newest: str) -> Chart | None:
    # One seed tells the shape; all of them would be a thicket.
    start = f"seed0/{newest}/"
    methods = {name.removeprefix(start): lines for name, lines in training.items() if name.startswith(start)}
    if methods and all("labels" in line for lines in methods.values() for line in lines):
        series = {name: [(line["epoch"], line["labels"]) for line in lines] for name, lines in methods.items()}
        return chart("Training loss", "epoch", f"{newest}: loss on the labels", series)
    # Sums of other losses: only their shapes compare.
    series = {
        name: [(line["epoch"], line["loss"] / lines[0]["loss"]) for line in lines]
        for name, lines in (methods or training).items()
        if lines and lines[0]["loss"]
    }
    return chart("Training loss", "epoch", "loss, first epoch = 1", series)


def _ranking(section: RankingSection) -> RankingTable:
    ranking = section.ranking
    higher = {(pair.method, pair.against): pair.difference for pair in ranking.pairs}
    names = [each.method for each in ranking.methods]
    lines = [[higher.get((method, name)) for name in names] for method in names]
    return RankingTable(section, one_seed(section), lines)


def _matrices(searches: Sequence[Search], generations: Sequence[str]) -> list[Matrix]:
    """A matrix a method, where there are three searches or more, all of them of generations of the lineage."""
    named = {name for search in searches for name in (search.query, search.gallery)}
    if len({(search.query, search.gallery) for search in searches}) < 3 or not named <= set(generations):
        return []
    matrices = []
    for method in methods_of(searches) or [""]:
        cells: dict[tuple[str, str], list[Search]] = {}
        seeds = {search.seed for search in searches if (search.method or "") == method}
        for search in searches:
            first = search.query == search.gallery == generations[0]  # one model for every method
            if search.seed in seeds and (first or (search.method or "") == method):
                cells.setdefault((search.query, search.gallery), []).append(search)
        if (generations[0], generations[0]) in cells:
            matrices.append(_matrix(method, cells, generations))
    return matrices


def _matrix(method: str, cells: Mapping[tuple[str, str], Sequence[Search]], generations: Sequence[str]) -> Matrix:
    means = {
        cell: {score: math.fsum(each.scores[score] for each in lines) / len(lines) for score in (MAIN, RANKING)}
        for cell, lines in cells.items()
    }
    start = means[generations[0], generations[0]][MAIN]
    reach = max(0.01, *(abs(mean[MAIN] - start) for mean in means.values()))

    def cell(query: str, gallery: str) -> MatrixCell | None:
        mean = means.get((query, gallery))
        return None if mean is None else MatrixCell(mean, (mean[MAIN] - start) / reach)

    return Matrix(method, {query: [cell(query, gallery) for gallery in generations] for query in generations})
