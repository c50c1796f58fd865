"""Several candidates to search with, assessed on the same queries beside the status quo and a full backfill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nobackfill.evaluation.bootstrap import Difference, Doubles
from nobackfill.evaluation.comparison import Comparison, Overall, overall, sentence
from nobackfill.evaluation.kinds import KINDS, Kind
from nobackfill.evaluation.neighbours import overlap
from nobackfill.evaluation.retrieval import RetrievalMetrics
from nobackfill.evaluation.scores import AGREEMENT, DECISIVE, FIT_SCORES
from nobackfill.evaluation.verdict import Decision, Verdict

STATUS_QUO, FULL = "status quo", "full backfill"
NEAREST = 10  # answers that are compared with a full backfill's


@dataclass(frozen=True)
class CandidateSearch:
    """What one candidate's search found.

    Attributes:
        name: of the method, or STATUS_QUO, FULL.
        searched: in words: `old/old`, `new/old`, `new/mapped`, `old + new/old`, `new/new`.
        dim: values of the vectors that are searched.
        nearest: int64 [n, 10], the items found, best first.
        choice: settings that were chosen.
        validation: score by which settings were chosen.
    """

    name: str
    searched: str
    dim: int
    nearest: NDArray[np.int64]
    choice: str = ""
    validation: float | None = None


@dataclass(frozen=True)
class CandidateResult:
    """One candidate's search.

    Attributes:
        name, searched, dim, choice, validation: see `CandidateSearch`.
        overlap: mean fraction of a full backfill's nearest ten that is among this search's.
        scores: score → mean; empty without labels or relevance.
        change: score that decides (else `overlap`) → difference to the status quo; None for the status quo itself.
        queries: how many there are that have a match; None without labels or relevance, like the next two.
        lost, won: queries whose first answer is wrong, and was right by the status quo; and the other way round.
    """

    name: str
    searched: str
    dim: int
    overlap: float
    scores: dict[str, float]
    change: dict[str, Difference] | None = None
    choice: str = ""
    validation: float | None = None
    queries: int | None = None
    lost: int | None = None
    won: int | None = None

    @property
    def kind(self) -> Kind | None:
        """Which queries it needs, and what becomes of the gallery; None where old and new vectors do not meet."""
        return next((kind for kind in KINDS if kind.searched == self.searched), None)

    @property
    def decision(self) -> Overall | None:
        """Against the status quo; None for itself."""
        return None if self.change is None else overall(self.change)


def assess_candidates(
    searches: Sequence[CandidateSearch], measure: Mapping[int, RetrievalMetrics]
) -> list[CandidateResult]:
    """A line a candidate, each compared with the first one, the status quo.

    Args:
        searches: the status quo, the full backfill, then candidates; all of the same queries and items.
        measure: place in `searches` → its metrics; empty where nobody knows what is relevant.
    """
    wanted = next(one for one in searches if one.name == FULL).nearest
    results, values = [], {}
    for place, one in enumerate(searches):
        agreement = overlap(one.nearest, wanted)
        decisive: dict[str, Doubles] = {AGREEMENT: agreement}
        scores: dict[str, float] = {}
        queries, lost, won = None, None, None
        if place in measure:
            metrics = measure[place]
            queries, lost, won = _changed(measure[0], metrics)
            decisive = {score: metrics.per_query(score)[metrics.counted] for score in DECISIVE}
            scores = {score: float(metrics.per_query(score)[metrics.counted].mean()) for score in FIT_SCORES}
        values.update({(place, score): each[None] for score, each in decisive.items()})
        results.append(
            CandidateResult(
                one.name,
                one.searched,
                one.dim,
                float(agreement.mean()),
                scores,
                choice=one.choice,
                validation=one.validation,
                queries=queries,
                lost=lost,
                won=won,
            )
        )
    means = Comparison(values)
    names = [score for place, score in values if place == 0]
    changes = [
        {score: means.difference((place, score), (0, score)) for score in names} for place in range(len(results))
    ]
    return [results[0], *map(_with_change, results[1:], changes[1:])]


def _changed(before: RetrievalMetrics, after: RetrievalMetrics) -> tuple[int, int, int]:
    """How many queries there are, and how many first answers became wrong, and right."""
    was, found = (each.first_match[before.counted] == 1 for each in (before, after))
    return len(was), int((was & ~found).sum()), int((~was & found).sum())


def _with_change(result: CandidateResult, change: dict[str, Difference]) -> CandidateResult:
    return replace(result, change=change)


def candidates_verdict(results: Sequence[CandidateResult]) -> Verdict:
    """What to do. In each direction the candidate that did best on *validation* pairs decides.

    The best of many on the held-out items would look better than it is.
    """
    deciding = [best for kind in KINDS if (best := _best(results, kind.searched))]
    reasons = [f"{each.name}, {each.searched}: {_sentence(each)}" for each in deciding]
    reasons.append(f"full backfill, new/new: {_sentence(next(each for each in results if each.name == FULL))}")
    words = {each.decision for each in deciding}
    if "better" in words:
        decision: Decision = "use it"
    elif words <= {"worse", "mixed"}:
        decision = "do nothing"
        reasons.insert(0, "DOING NOTHING IS BETTER: keep searching with the old model until the gallery is backfilled.")
    else:
        decision = "cannot tell"
        reasons.insert(
            0, "No way of comparing old and new vectors differs measurably from the status quo; none is worth it."
        )
    return Verdict(decision, tuple(reasons))


def _best(results: Sequence[CandidateResult], searched: str) -> CandidateResult | None:
    chosen = [each for each in results if each.searched == searched and each.validation is not None]
    return max(chosen, key=lambda each: each.validation or 0.0, default=None)


def _sentence(result: CandidateResult) -> str:
    return sentence(result.change or {}, f"the {STATUS_QUO}")
