"""What the first screen of a report says, against the searches that it sums up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nobackfill.cli.app import run
from nobackfill.errors import DataError
from nobackfill.evaluation import Upgrade, backfilling_curve, compare, retrieval_metrics
from nobackfill.evaluation.candidates import (
    FULL,
    NEAREST,
    STATUS_QUO,
    CandidateSearch,
    assess_candidates,
    candidates_verdict,
)
from nobackfill.evaluation.neighbours import neighbours
from nobackfill.reports.comparing import compare_reports
from nobackfill.reports.document import FitSection, Report, UpgradeSection, read_report
from nobackfill.reports.html import build_comparison, build_report
from nobackfill.reports.markdown import build_markdown, build_markdown_comparison
from nobackfill.reports.summary import quarters, summarise_report, upgrade_summary

FIXTURES = Path(__file__).parents[1] / "fixtures"
LABELS = np.random.default_rng(0).integers(0, 5, 150)


def vectors(quality: float, seed: int) -> Any:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(5, 8))
    return (quality * centres[LABELS] + random.normal(size=(150, 8))).astype(np.float32)


OLD, BETTER, WORSE = vectors(0.6, 1), vectors(1.5, 2), vectors(0.1, 3)


def assessed(new: Any, **options: Any) -> Upgrade:
    return compare(OLD, new, LABELS, exclude_self=True, replicates=200, **options)


def test_losers_are_those_a_loop_counts() -> None:
    result = assessed(BETTER)
    before, after = (retrieval_metrics(queries, OLD, LABELS, LABELS, exclude_self=True) for queries in (OLD, BETTER))
    lost = sum(was == 1 != now for was, now in zip(before.first_match, after.first_match, strict=True))
    won = sum(now == 1 != was for was, now in zip(before.first_match, after.first_match, strict=True))
    fallen = [
        label
        for label in range(5)
        if after.average_precision[label == LABELS].mean() < before.average_precision[label == LABELS].mean()
    ]
    queries, classes = upgrade_summary(UpgradeSection(old="a", new="b", result=result)).losses
    assert queries.startswith(f"{lost} of 150 queries (")
    assert f"; {won} (" in queries
    lose = "loses" if len(fallen) == 1 else "lose"
    expected = f"{len(fallen)} of 5 classes {lose} mAP, with {np.isin(LABELS, fallen).sum()} queries; "
    assert classes.startswith(expected if fallen else "None of 5 classes loses mAP.")


def test_each_quarter_of_the_curve() -> None:
    curve = backfilling_curve(BETTER, OLD, BETTER, LABELS, LABELS, exclude_self=True)
    points = quarters(curve)
    assert [point.fraction for point in points] == [0, 0.25, 0.5, 0.75, 1]
    scores = curve.scores["top1"]
    assert points[0].score == pytest.approx(scores[0])
    assert points[1].score == pytest.approx((scores[2] + scores[3]) / 2)  # between two tenths
    assert points[0].added is None
    assert sum(point.added or 0 for point in points) == pytest.approx(scores[-1] - scores[0])
    assert quarters(None) == ()


def test_one_decision_in_one_sentence() -> None:
    sections = {
        name: UpgradeSection(method=name, old="a", new="b", result=assessed(new))
        for name, new in (("worse", WORSE), ("better", BETTER))
    }
    summary = summarise_report(Report(generations=["a", "b"], upgrades=list(sections.values())))
    assert summary is not None
    assert summary.name == "better: a → b"
    assert summary.decision.startswith("Ship the new model now: ")
    assert summary.verdict == "ship"
    (other,) = summary.others
    assert other.startswith("worse: a → b: do not ship, top-1 -")
    worse = upgrade_summary(sections["worse"])
    assert worse.decision == "Do not ship: the new model is not clearly better, before a backfill or after it."
    turned = assessed(-BETTER)  # of no use in the old gallery, and as good as ever in its own
    late = upgrade_summary(UpgradeSection(old="a", new="b", result=turned))
    assert late.decision.startswith("Do not ship before the backfill is complete")
    assert summarise_report(Report()) is None


def fitted(labelled: bool) -> FitSection:
    vectors = [(OLD, OLD), (BETTER, BETTER), (BETTER, OLD)]
    names = [(STATUS_QUO, "old/old", None), (FULL, "new/new", None), ("ridge", "new/old", 0.5)]
    searches = [
        CandidateSearch(name, searched, 8, neighbours(*both, NEAREST, exclude_self=True), validation=validation)
        for (name, searched, validation), both in zip(names, vectors, strict=True)
    ]
    measure = {place: retrieval_metrics(*both, LABELS, LABELS, exclude_self=True) for place, both in enumerate(vectors)}
    results = assess_candidates(searches, measure if labelled else {})
    return FitSection(
        results=results, verdict=candidates_verdict(results), best="ridge", dropped=0, fitted_on_gallery=False
    )


def test_a_fit_counts_its_losers_where_there_are_labels() -> None:
    summary = summarise_report(Report(fit=fitted(True)))
    assert summary is not None
    assert summary.decision == (
        "Use ridge: searches get better at once; the new model embeds queries; the gallery stays as it is."
    )
    flips = assessed(BETTER).flips["new/old"]
    lost, won = (round(150 * each.mean) for each in (flips.negative, flips.positive))
    assert summary.losses == (f"new/old: {lost} of 150 held-out queries lose a right first answer; {won} gain one.",)
    without = summarise_report(Report(fit=fitted(False)))
    assert without is not None
    assert without.losses == ("Unknown: without labels nobody can say which answers were right.",)


@pytest.mark.parametrize("name", ["fit", "scenario", "upgrade"])
def test_page_and_tables_begin_with_it(name: str) -> None:
    report = read_report(FIXTURES / f"report_{name}.json")
    summary = summarise_report(report)
    assert summary is not None
    page, text = build_report(report, "x"), build_markdown(report, "x")
    assert page.index(summary.decision.replace("'", "&#39;")) < page.index("What gets worse, and for whom")
    for line in (*summary.now, *summary.losses):
        assert line.replace("'", "&#39;") in page
        assert line in text
    assert text.startswith(f"**{summary.decision}**")


def test_two_reports_cell_by_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = {
        name: Report(generations=["a", name], upgrades=[UpgradeSection(old="a", new=name, result=assessed(new))])
        for name, new in (("better", BETTER), ("worse", WORSE))
    }
    both = compare_reports(reports["better"], reports["worse"], ("x", "y"))
    cells = {(each.searched, each.score): each for each in both.cells}
    assert {searched for searched, _ in cells} == {"old/old", "new/old", "new/new"}
    for (searched, score), each in cells.items():
        found = [report.upgrades[0].result.scores[searched][score].mean for report in reports.values()]
        assert [each.first, each.second] == found
    assert both.rows()[0][-1] == "+0.0"  # the status quo of both
    page, text = build_comparison(both), build_markdown_comparison(both)
    for summary in both.summaries:
        assert summary is not None
        assert summary.decision.replace("'", "&#39;") in page
        assert summary.decision in text
    with pytest.raises(DataError, match="x and z have no cell in common: found full backfill new/new"):
        compare_reports(Report(fit=fitted(True)), reports["worse"], ("x", "z"))
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(report.to_json())
    verb = ["report", str(tmp_path / "better.json"), "--compare", str(tmp_path / "worse.json"), "--out"]
    assert run([*verb, str(tmp_path / "c.html")]) == 0
    assert "Do not ship: " in capsys.readouterr().out
    assert run([*verb, str(tmp_path / "c.md"), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert [summary["verdict"] for summary in tree["summaries"]] == ["ship", "do not ship"]
    assert (tmp_path / "c.md").read_text() == build_markdown_comparison(
        compare_reports(reports["better"], reports["worse"], (verb[1], verb[3]))
    )


def test_open_shows_the_file_and_says_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def show(url: str) -> bool:
        shown.append(url)
        return True

    verb = ["report", str(FIXTURES / "report_fit.json"), "--out", str(tmp_path / "r.html"), "--open"]
    monkeypatch.setattr("webbrowser.open", show)
    assert run(verb) == 0
    assert shown == [(tmp_path / "r.html").as_uri()]
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    assert run(verb) == 0
    assert "no browser could be started" in capsys.readouterr().err
