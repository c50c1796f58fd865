"""What a fit's verdict and first screen say of rows that are better, worse, or measured by agreement only."""

from __future__ import annotations

import numpy as np
import pytest

from nobackfill.evaluation.bootstrap import Difference
from nobackfill.evaluation.candidates import (
    FULL,
    STATUS_QUO,
    UNMEASURED,
    CandidateResult,
    CandidateSearch,
    assess_candidates,
    candidates_verdict,
)
from nobackfill.evaluation.comparison import Overall
from nobackfill.reports.document import FitSection, Report
from nobackfill.reports.html import build_report
from nobackfill.reports.markdown import build_markdown
from nobackfill.reports.summary import fit_summary

UP, LEVEL, DOWN = Difference(0.03, 0.01, 0.05), Difference(0, -0.01, 0.01), Difference(-0.03, -0.05, -0.01)
CHANGES: dict[Overall, tuple[Difference, Difference]] = {
    "better": (UP, UP), "cannot tell": (LEVEL, LEVEL), "worse": (DOWN, DOWN), "mixed": (UP, DOWN),
}  # fmt: skip
SCORES = {"top1": 0.5, "top10": 0.6, "mean_ap": 0.5}


def row(
    name: str, searched: str, found: Overall | None, validation: float | None = None, *, labelled: bool = True
) -> CandidateResult:
    change = None
    if found is not None:
        change = dict(zip(("top1", "mean_ap") if labelled else ("overlap",), CHANGES[found], strict=False))
    scores = SCORES if labelled else {}
    return CandidateResult(name, searched, 8, 0.5, scores, change, validation=validation, queries=100, lost=1, won=2)


def fitted(*rows: CandidateResult, best: str, full: Overall | None = "better") -> FitSection:
    labelled = bool(rows[0].scores)
    results = [
        row(STATUS_QUO, "old/old", None, labelled=labelled),
        row(FULL, "new/new", full if labelled else None, labelled=labelled),
        *rows,
    ]
    verdict = candidates_verdict(results)
    return FitSection(results=results, verdict=verdict, best=best, dropped=0, fitted_on_gallery=False)


def test_without_labels_nothing_is_called_better() -> None:
    fit = fitted(
        row("ridge", "new/old", "better", 0.5, labelled=False),
        row("ridge", "new/mapped", "worse", 0.5, labelled=False),
        best="ridge",
    )
    assert fit.verdict.decision == "use it"
    first, second, last = fit.verdict.reasons
    assert first == (
        "ridge, new/old: agreement with a full backfill +3.0 [+1.0, +5.0] points: "
        "nearer to the new model's answers than the status quo."
    )
    assert second.endswith("further from the new model's answers than the status quo.")
    assert last == UNMEASURED
    summary = fit_summary(fit)
    assert summary.decision == (
        "Use ridge if you want the new model's answers: searches get nearer to them at once; "
        "the new model embeds queries; the gallery stays as it is."
    )
    assert summary.backfill == (UNMEASURED,)
    assert [each.word for each in fit.results] == ["", "", "nearer", "further"]
    page, text = build_report(Report(fit=fit), "x"), build_markdown(Report(fit=fit), "x")
    for written in (page, text):
        assert "nearer" in written
        assert "better than" not in written
        assert "get better" not in written


def test_without_labels_a_full_backfill_is_not_compared_with_itself() -> None:
    wanted = np.arange(200).reshape(20, 10)
    searches = [CandidateSearch(STATUS_QUO, "old/old", 8, wanted + 5), CandidateSearch(FULL, "new/new", 8, wanted)]
    quo, full, other = assess_candidates([*searches, CandidateSearch("ridge", "new/old", 8, wanted)], {})
    assert (full.overlap, full.change, full.decision) == (1, None, None)
    assert (quo.overlap, other.decision) == (0.5, "better")


def test_what_keeps_one_from_a_map_is_said_as_it_is() -> None:
    level = fitted(row("ridge", "new/old", "worse", 0.5), row("ridge", "new/mapped", "cannot tell", 0.5), best="ridge")
    assert level.verdict.decision == "cannot tell"
    assert level.verdict.reasons[0] == (
        "No way of comparing old and new vectors is measurably better than the status quo; none is worth it."
    )
    assert fit_summary(level).decision == (
        "No map between the two models is measurably better than keeping the old model: none is worth it."
    )
    far = fitted(row("ridge", "new/old", "cannot tell", 0.5, labelled=False), best="ridge")
    assert "measurably nearer to the new model's answers than the status quo" in far.verdict.reasons[0]
    further = fitted(row("ridge", "new/old", "worse", 0.5, labelled=False), best="ridge")
    assert further.verdict.reasons[0] == (
        "DOING NOTHING IS NEARER to the new model's answers: "
        "keep searching with the old model until the gallery is backfilled."
    )
    mixed = fitted(row("ridge", "new/old", "mixed", 0.5), best="ridge")
    assert mixed.verdict.reasons[0].startswith("DO NOTHING, since what was fitted gains in one score and loses in")


@pytest.mark.parametrize(
    ("full", "until"),
    [
        ("better", "model until the gallery is backfilled."),
        ("worse", "model. A full backfill is worse as well."),
        ("cannot tell", "model. A full backfill is not measurably better either."),
        ("mixed", "model. A full backfill gains in one score and loses in the other."),
    ],
)
def test_a_backfill_that_gains_nothing_is_not_waited_for(full: Overall, until: str) -> None:
    fit = fitted(row("ridge", "new/old", "worse", 0.5), best="ridge", full=full)
    assert fit.verdict.reasons[0] == f"DOING NOTHING IS BETTER: keep searching with the old {until}"
    assert fit_summary(fit).decision == f"Do nothing: keep searching with the old {until}"


def test_only_what_was_chosen_on_validation_pairs_is_recommended() -> None:
    fit = fitted(
        row("procrustes", "new/old", "cannot tell", 0.6), row("ridge", "new/old", "better", 0.4),
        row("procrustes", "new/mapped", "better", 0.5), row("mlp", "new/mapped", "better", 0.7),
        best="procrustes",
    )  # fmt: skip
    summary = fit_summary(fit)
    assert summary.name == "mlp"
    assert summary.decision == (
        "Use mlp (in the folder methods): searches get better at once; "
        "the new model embeds queries; every stored vector is rewritten."
    )
    assert [line.split(" ")[0] for line in summary.now] == ["new/mapped"]
    assert summary.losses == ("new/mapped: 1 of 100 held-out queries lose a right first answer; 2 gain one.",)
    assert len(summary.others) == 3
    own = fitted(row("ridge", "new/old", "better", 0.4), row("mlp", "new/mapped", "better", 0.7), best="ridge")
    assert fit_summary(own).decision.startswith("Use ridge: searches get better at once; ")
