"""Several candidates to search with, assessed on the same queries beside the status quo and a full backfill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nobackfill.evaluation.bootstrap import Difference, Doubles
from nobackfill.evaluation.comparison import Comparison, Overall, found, overall, sentence, word
from nobackfill.evaluation.kinds import KINDS, Kind
from nobackfill.evaluation.neighbours import overlap
from nobackfill.evaluation.retrieval import RetrievalMetrics
from nobackfill.evaluation.scores import AGREEMENT, DECISIVE, FIT_SCORES
from nobackfill.evaluation.verdict import Decision, Verdict

STATUS_QUO, FULL = "status quo", "full backfill"
NEAREST = 10  # answers that are compared with a full backfill's, at most
UNMEASURED = "Whether the new model's answers are better is unknown: without labels or relevance nothing measures it."


def compared_among(items: int) -> int:
    """How many neighbours agreement compares; ten of eleven items would be the same ones for every map."""
    return max(1, min(NEAREST, (items - 1) // 3))


@dataclass(frozen=True)
class CandidateSearch:
    """What one candidate's search found.

    Attributes:
        name: of the method, or STATUS_QUO, FULL.
        searched: in words: `old/old`, `new/old`, `new/mapped`, `old + new/old`, `new/new`.
        dim: values of the vectors that are searched.
        nearest: int64 [n, `compared_among(items)`], the items found, best first.
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
        overlap: mean fraction of a full backfill's nearest items that is among as many of this search's.
        scores: score → mean; empty without labels or relevance.
        change: score that decides (else `overlap`) → difference to the status quo; None for the status quo itself, and
            without labels for the full backfill, which is what `overlap` is measured by.
        queries: how many there are that have a match; None without labels or relevance, like the next two.
        lost, won: queries whose first answer is wrong, and was right by the status quo; and the other way round.
        nearest: how many items `overlap` compares.
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
    nearest: int = NEAREST

    @property
    def kind(self) -> Kind | None:
        """Which queries it needs, and what becomes of the gallery; None where old and new vectors do not meet."""
        return next((kind for kind in KINDS if kind.searched == self.searched), None)

    @property
    def decision(self) -> Overall | None:
        """Against the status quo; None where there is no change."""
        return None if self.change is None else overall(self.change)

    @property
    def word(self) -> str:
        """`decision` as tables show it; empty for None."""
        return word(self.change) if self.change else ""

    @property
    def finding(self) -> str:
        """What the change shows, such as `better than the status quo`; only where there is one."""
        return found(self.change or {}, f"the {STATUS_QUO}")

    @property
    def sentence(self) -> str:
        """The change in words."""
        return sentence(self.change or {}, f"the {STATUS_QUO}")


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
                nearest=one.nearest.shape[1],
            )
        )
    means = Comparison(values)
    names = [score for place, score in values if place == 0]
    changes = [
        {score: means.difference((place, score), (0, score)) for score in names} for place in range(len(results))
    ]
    changed = [results[0], *map(_with_change, results[1:], changes[1:])]
    # Without labels a full backfill is the measure, and in full agreement with itself.
    return changed if measure else [replace(each, change=None) if each.name == FULL else each for each in changed]


def _changed(before: RetrievalMetrics, after: RetrievalMetrics) -> tuple[int, int, int]:
    """How many queries there are, and how many first answers became wrong, and right."""
    was, found = (each.first_match[before.counted] == 1 for each in (before, after))
    return len(was), int((was & ~found).sum()), int((~was & found).sum())


def _with_change(result: CandidateResult, change: dict[str, Difference]) -> CandidateResult:
    return replace(result, change=change)


def candidates_verdict(results: Sequence[CandidateResult]) -> Verdict:
    """What to do; see `deciding`. Without labels it says whose answers are nearer to the new model's, and no more."""
    chosen, labelled = deciding(results), bool(results[0].scores)
    reasons = [f"{each.name}, {each.searched}: {each.sentence}" for each in chosen]
    if labelled:
        reasons.append(f"{FULL}, new/new: {results[1].sentence}")
    words = {each.decision for each in chosen}
    aim = "better than" if labelled else "nearer to the new model's answers than"
    if "better" in words:
        decision: Decision = "use it"
    elif words <= {"worse", "mixed"}:
        decision = "do nothing"
        loud = "DOING NOTHING IS BETTER" if labelled else "DOING NOTHING IS NEARER to the new model's answers"
        if words == {"mixed"}:
            loud = "DO NOTHING, since what was fitted gains in one score and loses in the other"
        reasons.insert(0, f"{loud}: {keep_old(results)}")
    else:
        decision = "cannot tell"
        reasons.insert(
            0, f"No way of comparing old and new vectors is measurably {aim} the {STATUS_QUO}; none is worth it."
        )
    return Verdict(decision, tuple(reasons) if labelled else (*reasons, UNMEASURED))


def deciding(results: Sequence[CandidateResult]) -> list[CandidateResult]:
    """Of each kind of search the candidate that did best on *validation* pairs.

    The best of many on the held-out items would look better than it is.
    """
    return [best for kind in KINDS if (best := _best(results, kind.searched))]


def published(results: Sequence[CandidateResult], best: str) -> CandidateResult | None:
    """The search that a fit's run folder is for, by the name of its method: to the old space if it maps there."""
    rows = [each for kind in KINDS for each in results if (each.name, each.searched) == (best, kind.searched)]
    return rows[0] if rows else None


def keep_old(results: Sequence[CandidateResult]) -> str:
    """The advice to keep the old model, and until when: there may be nothing to gain by the new one."""
    full = results[1].decision if results[0].scores else "better"  # without labels it is taken for the better one
    ends = {
        "worse": f". A {FULL} is worse as well.",
        "mixed": f". A {FULL} gains in one score and loses in the other.",
        "cannot tell": f". A {FULL} is not measurably better either.",
    }
    return "keep searching with the old model" + ends.get(full or "", " until the gallery is backfilled.")


def _best(results: Sequence[CandidateResult], searched: str) -> CandidateResult | None:
    chosen = [each for each in results if each.searched == searched and each.validation is not None]
    return max(chosen, key=lambda each: each.validation or 0.0, default=None)
