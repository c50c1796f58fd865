"""What a report says to whoever decides: what to do, what that gains now, what a backfill adds, who loses by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nobackfill.evaluation import Upgrade
from nobackfill.evaluation.backfilling import BackfillingCurve
from nobackfill.evaluation.candidates import FULL, UNMEASURED, CandidateResult, deciding, keep_old, published
from nobackfill.evaluation.comparison import decisive, overall, sentence
from nobackfill.evaluation.scores import MAIN, RANKING, title
from nobackfill.evaluation.verdict import STATUS_QUO, UPGRADE_DECISIONS, Decision
from nobackfill.reports.document import FitSection, Report, UpgradeSection

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
WORST_CLASSES = 3


@dataclass(frozen=True)
class Quarter:
    """A point of the backfilling curve.

    Attributes:
        fraction: of the gallery that is backfilled.
        score: top-1 of the new queries, in 0–1.
        added: what the last quarter added to it; None at the start.
    """

    fraction: float
    score: float
    added: float | None


@dataclass(frozen=True)
class Summary:
    """The first screen of a report, in sentences that end with a full stop.

    Attributes:
        name: of what is decided on; empty where there is one thing only.
        verdict: the decision, as the verdict names it.
        decision: the decision in one sentence.
        now: what is gained on the day of the switch.
        quarters: what each quarter of a backfill buys; empty where it is unknown.
        backfill: the same in sentences.
        losses: what gets worse, and for whom.
        others: alternatives that were measured.
    """

    name: str
    verdict: Decision
    decision: str
    now: tuple[str, ...]
    quarters: tuple[Quarter, ...]
    backfill: tuple[str, ...]
    losses: tuple[str, ...]
    others: tuple[str, ...] = ()


def summarise_report(report: Report) -> Summary | None:
    """Of the one upgrade or map that a report recommends or advises against; None where it compares nothing."""
    if report.fit is not None:
        return fit_summary(report.fit)
    newest = [each for each in report.upgrades if each.new in report.generations[-1:]] or report.upgrades
    if not newest:
        return None
    # From several galleries to one model: the last step counts, an older gallery is no alternative to it.
    places = {name: place for place, name in enumerate(report.generations)}
    last = max(places.get(each.old, -1) for each in newest)
    newest = [each for each in newest if places.get(each.old, -1) == last]
    best = min(newest, key=_rank)
    others = tuple(
        f"{_name(each)}: {each.result.verdict.decision}, {_gain(each)} in the old gallery."
        for each in [*sorted((one for one in newest if one is not best), key=_rank), *_earlier(report, newest)]
    )
    return upgrade_summary(best, _level_with(report, best) + others)


def upgrade_summary(section: UpgradeSection, others: tuple[str, ...] = ()) -> Summary:
    """Of an assessed upgrade."""
    result = section.result
    return Summary(
        name=_name(section),
        verdict=result.verdict.decision,
        decision=_decision(result),
        now=(f"Nothing backfilled: {sentence(result.change['new/old'], STATUS_QUO)}",),
        quarters=quarters(result.curve),
        backfill=_backfill(result),
        losses=_losses(result),
        others=others,
    )


def fit_summary(fit: FitSection) -> Summary:
    """Of fitted maps: of the one to use, else of the one that the run folder holds."""
    own = recommended(fit)
    words: dict[Decision, str] = {
        "use it": _use_it(fit, own),
        "cannot tell": f"No map between the two models {_gains(fit)} keeping the old model: none is worth it.",
        "do nothing": f"Do nothing: {keep_old(fit.results)}",
    }
    others = [each for each in fit.results if each is not own and each.name != FULL and each.kind and each.change]
    return Summary(
        name=own.name if own else fit.best,
        verdict=fit.verdict.decision,
        decision=words.get(fit.verdict.decision, fit.verdict.decision),
        now=(f"{own.searched} ({own.kind.words}): {own.sentence}",) if own and own.kind else (),
        quarters=(),
        backfill=(f"All backfilled: {fit.results[1].sentence}" if fit.labelled else UNMEASURED,),
        losses=_fit_losses(own, fit.labelled),
        others=tuple(f"{each.name}, {each.searched}: {each.sentence}" for each in others),
    )


def recommended(fit: FitSection) -> CandidateResult | None:
    """Of the searches that decide a better one, that of the run folder first; else that of the run folder."""
    held = published(fit.results, fit.best)
    better = [each for each in deciding(fit.results) if each.decision == "better"]
    return held if held in better or not better else better[0]


def quarters(curve: BackfillingCurve | None) -> tuple[Quarter, ...]:
    """Its top-1 at 0, 25 … 100 %, by straight lines between its points."""
    if curve is None or not curve.fractions:
        return ()
    scores = [float(value) for value in np.interp(QUARTERS, curve.fractions, curve.scores[MAIN])]
    added: list[float | None] = [None, *(after - before for before, after in pairwise(scores))]
    return tuple(map(Quarter, QUARTERS, scores, added))


def _use_it(fit: FitSection, own: CandidateResult | None) -> str:
    if own is None or own.kind is None:
        return "Use it."
    where = "" if own is published(fit.results, fit.best) else " (in the folder methods)"
    if fit.labelled:
        return f"Use {own.name}{where}: searches get better at once; {own.kind.words}."
    aim = f"Use {own.name}{where} if you want the new model's answers: searches get nearer to them at once"
    return f"{aim}; {own.kind.words}."


def _gains(fit: FitSection) -> str:
    return "is measurably better than" if fit.labelled else "gets measurably nearer to the new model's answers than"


def _decision(result: Upgrade) -> str:
    if result.verdict.decision == "ship":
        return "Ship the new model now: its queries find more in the old gallery than the old model's do."
    if result.verdict.decision == "ship and backfill":
        return "Ship the new model and backfill: until then, searches are about as good as today."
    if "new/new" not in result.change:
        return "Do not ship: new queries are not better in the old gallery, and a backfill's gain was not measured."
    if overall(result.change["new/new"]) == "better":
        return "Do not ship before the backfill is complete: only then is the new model better."
    return "Do not ship: the new model is not clearly better, before a backfill or after it."


def _backfill(result: Upgrade) -> tuple[str, ...]:
    if "new/new" not in result.change:
        return ("Unknown: the gallery embedded by the new model was not given.",)
    falls = "Old and new items do not mix well here: scores fall on the way, so switch when all is backfilled."
    whole = f"All backfilled: {sentence(result.change['new/new'], STATUS_QUO)}"
    return (whole, falls) if result.curve and result.curve.may_fall else (whole,)


def _losses(result: Upgrade) -> tuple[str, ...]:
    """Queries whose first answer was right, and the classes that they ask for."""
    lines = []
    if flips := result.flips.get("new/old"):
        lost, won = (round(each.mean * result.queries) for each in (flips.negative, flips.positive))
        several = " (mean over the seeds)" if result.seeds > 1 else ""
        lines.append(
            f"{lost:,} of {result.queries:,} queries ({100 * flips.negative.mean:.1f} %) lose a right first answer in "
            f"the old gallery; {won:,} ({100 * flips.positive.mean:.1f} %) gain one{several}."
        )
    fallen = [line for line in result.classes if line.change() < 0]
    if fallen:
        worst = ", ".join(f"{line.name} ({100 * line.change():+.1f})" for line in fallen[:WORST_CLASSES])
        asked, lose = sum(line.queries for line in fallen), "loses" if len(fallen) == 1 else "lose"
        lines.append(
            f"{len(fallen)} of {len(result.classes)} classes {lose} {title(RANKING)}, with {asked:,} queries; "
            f"most, in points: {worst}."
        )
    elif result.classes:
        lines.append(f"None of {len(result.classes)} classes loses {title(RANKING)}.")
    return tuple(lines)


def _fit_losses(own: CandidateResult | None, labelled: bool) -> tuple[str, ...]:
    if not labelled:
        return ("Unknown: without labels nobody can say which answers were right.",)
    if own is None or own.lost is None or own.won is None or own.queries is None:
        return ("Unknown: this report was written before changed answers were counted; fit again.",)
    return (
        f"{own.searched}: {own.lost:,} of {own.queries:,} held-out queries lose a right first answer; "
        f"{own.won:,} gain one.",
    )


def _name(section: UpgradeSection) -> str:
    return f"{section.method}: {section.old} → {section.new}" if section.method else f"{section.old} → {section.new}"


def _gain(section: UpgradeSection) -> str:
    change = section.result.change["new/old"]
    return ", ".join(f"{title(score)} {change[score].points()}" for score in decisive(change)) + " points"


def _rank(section: UpgradeSection) -> tuple[int, float]:
    """Best decision first, then the larger gain in the untouched gallery."""
    result = section.result
    return UPGRADE_DECISIONS.index(result.verdict.decision), -result.change["new/old"][MAIN].mean


def _level_with(report: Report, best: UpgradeSection) -> tuple[str, ...]:
    """A sentence on methods that may be as good, if the report compares them in the old gallery."""
    for each in report.rankings:
        ranked = {one.method for one in each.ranking.methods}
        if (each.query, each.gallery, each.score) == (best.new, best.old, MAIN) and best.method in ranked:
            level = each.ranking.level_with(best.method)
            return (f"Cannot be told apart from {best.method} by {title(MAIN)}: {', '.join(level)}.",) if level else ()
    return ()


def _earlier(report: Report, newest: Sequence[UpgradeSection]) -> list[UpgradeSection]:
    return [each for each in report.upgrades if each not in newest]
