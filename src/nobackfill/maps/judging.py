"""What each way of comparing old and new vectors is worth on held-out items, beside doing nothing and backfilling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nobackfill.evaluation import Difference, RetrievalMetrics, paired_bootstrap, retrieval_metrics
from nobackfill.evaluation.neighbours import neighbours, overlap, own_ranks
from nobackfill.evaluation.vectors import Floats
from nobackfill.maps.fits import NEAREST, Candidate
from nobackfill.maps.pairs import Held
from nobackfill.models import load

Word = Literal["use it", "cannot tell", "do nothing"]
STATUS_QUO, FULL = "status quo", "full backfill"
SURE = 3.0  # standard deviations from chance; unrelated pairs come that far once in a thousand times


@dataclass(frozen=True)
class Line:
    """One way of searching.

    Attributes:
        name: of the method, or STATUS_QUO, FULL.
        searched: in words: `old/old`, `new/old`, `new/mapped`, `new/new`.
        dim: values of the vectors that are searched.
        top1, top10: share of queries with a match among the first 1, 10; None without labels or relevance.
        mean_ap: likewise.
        overlap: share of a full backfill's nearest ten that is found.
        change: of `top1` and `mean_ap` (else of `overlap`) against the status quo, with 95 % intervals.
        choice: settings that were chosen.
        validation: score by which settings were chosen.
    """

    name: str
    searched: str
    dim: int
    overlap: float
    top1: float | None = None
    top10: float | None = None
    mean_ap: float | None = None
    change: dict[str, Difference] | None = None
    choice: str = ""
    validation: float | None = None

    @property
    def word(self) -> str:
        """`better`, `worse`, `mixed` or `cannot tell`, against the status quo; empty for itself."""
        if self.change is None:
            return ""
        words = {interval.word for interval in self.change.values()} - {"cannot tell"}
        return "cannot tell" if not words else "mixed" if len(words) > 1 else words.pop()


@dataclass(frozen=True)
class Advice:
    """What to do, and the sentences it rests on."""

    word: Word
    reasons: tuple[str, ...]


def judge_candidates(held: Held, candidates: Sequence[Candidate]) -> list[Line]:
    """Status quo and full backfill first, then a line a candidate; a way to old has a second one, its own new/new."""
    pairs = {
        (STATUS_QUO, "old/old"): (held.old_query, held.old_gallery),
        (FULL, "new/new"): (held.new_query, held.new_gallery),
    }
    about: dict[str, Candidate] = {}
    for one in candidates:
        encoder = load(one.folder, "cpu")
        name = one.name
        about[name + one.direction] = one
        if one.direction == "to-new":
            pairs[name, "new/mapped"] = (held.new_query, encoder.encode(held.old_gallery))
            continue
        query = encoder.encode(held.new_query)
        pairs[name, "new/old"] = (query, held.old_gallery)
        own = query if held.exclude_self else encoder.encode(held.new_gallery)
        pairs[name, "new/new"] = (query, own)
    wanted = neighbours(*pairs[FULL, "new/new"], NEAREST, exclude_self=held.exclude_self)
    lines, values = [], []
    for (name, searched), (query, gallery) in pairs.items():
        found = about.get(name + ("to-new" if searched == "new/mapped" else "to-old"))
        nearest = neighbours(query, gallery, NEAREST, exclude_self=held.exclude_self)
        agreement = overlap(nearest, wanted)
        scores: dict[str, Any] = {}
        figures = {"overlap": agreement}
        if held.labels is not None or held.relevant is not None:
            metrics = _searched(held, query, gallery)
            counted = metrics.first_match > 0
            figures = {score: metrics.per_query(score)[counted] for score in ("top1", "mean_ap")}
            scores = {"top1": metrics.cmc[1], "top10": metrics.cmc[10], "mean_ap": metrics.mean_ap}
        values.append(figures)
        lines.append(
            Line(
                name,
                searched,
                min(query.shape[1], gallery.shape[1]),
                float(agreement.mean()),
                **scores,
                choice=found.choice if found else "",
                validation=found.score if found else None,
            )
        )
    return _with_changes(lines, values)


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """The one that did best on the validation rows, of those to the old space if there are some."""
    to_old = [one for one in candidates if one.direction == "to-old"]
    return max(to_old or candidates, key=lambda one: one.score)


def advise(lines: Sequence[Line]) -> Advice:
    """What to do. In each direction the best way of *validation* is judged.

    The best of many on the held-out items would look better than it is.
    """
    judged = [best for searched in ("new/old", "new/mapped") if (best := _best(lines, searched))]
    reasons = [f"{each.name}, {each.searched}: {_sentence(each)}" for each in judged]
    reasons.append(f"full backfill, new/new: {_sentence(next(line for line in lines if line.name == FULL))}")
    words = {each.word for each in judged}
    if "better" in words:
        word: Word = "use it"
    elif words <= {"worse", "mixed"}:
        word = "do nothing"
        reasons.insert(0, "DOING NOTHING IS BETTER: keep searching with the old model until the gallery is backfilled.")
    else:
        word = "cannot tell"
        reasons.insert(0, "No way of comparing old and new vectors can be told from doing nothing; it is not worth it.")
    return Advice(word, tuple(reasons))


def unrelated(mapped: Floats, counterparts: Floats) -> str | None:
    """Why these pairs are no pairs, if they are not: own counterparts are found no better than by chance.

    Args:
        mapped: float32 [n, d], validation rows mapped into the space of their counterparts.
        counterparts: [n, d].
    """
    ranks = own_ranks(mapped, counterparts)
    count = len(ranks)
    # Of unrelated rows the ranks are uniform on 1 … n.
    expected, deviation = (count + 1) / 2, np.sqrt((count**2 - 1) / 12 / count)
    if expected - ranks.mean() > SURE * deviation:
        return None
    return (
        f"a map fitted on them puts an item's own old vector at rank {ranks.mean():.0f} of {count} on the average, "
        f"where chance would put it at {expected:.0f}: not the same items in the same order, or noise"
    )


def _best(ways: Sequence[Line], searched: str) -> Line | None:
    chosen = [line for line in ways if line.searched == searched]
    return max(chosen, key=lambda line: line.validation or 0.0, default=None)


def _searched(held: Held, query: Any, gallery: Any) -> RetrievalMetrics:
    labels = held.labels or (None, None)
    return retrieval_metrics(
        query, gallery, *labels, relevant=held.relevant, exclude_self=held.exclude_self, topk=(1, 5, 10)
    )


def _with_changes(lines: list[Line], values: list[dict[str, Any]]) -> list[Line]:
    names = list(values[0])
    means, draws = paired_bootstrap(np.stack([each[name] for each in values for name in names])[:, None, :])
    judged = [lines[0]]
    for place, line in enumerate(lines[1:], start=1):
        change = {}
        for offset, name in enumerate(names):
            one, base = place * len(names) + offset, offset
            change[name] = Difference.of(means[one] - means[base], draws[:, one] - draws[:, base])
        judged.append(Line(**{**line.__dict__, "change": change}))
    return judged


def _sentence(line: Line) -> str:
    titles = {"top1": "top-1", "mean_ap": "mAP", "overlap": "agreement with a full backfill"}
    parts = [
        f"{titles[name]} {100 * change.mean:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
        for name, change in (line.change or {}).items()
    ]
    words = {"cannot tell": "cannot be told from doing nothing", "mixed": "better in one and worse in the other"}
    return f"{', '.join(parts)}: {words.get(line.word, f'{line.word} than doing nothing')}."
