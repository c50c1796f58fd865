"""What each fitted map is worth on held-out items, beside doing nothing and backfilling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nobackfill.arrays import Floats
from nobackfill.evaluation.candidates import FULL, STATUS_QUO, CandidateResult, CandidateSearch, assess_candidates
from nobackfill.evaluation.compare import Protocol
from nobackfill.evaluation.neighbours import own_ranks
from nobackfill.maps.fits import Candidate
from nobackfill.maps.pairs import Held
from nobackfill.models import load

SURE = 3.0  # standard deviations from chance; unrelated pairs come that far once in a thousand times


def assess_fits(held: Held, candidates: Sequence[Candidate]) -> list[CandidateResult]:
    """Status quo and full backfill first, then a line a candidate; one to old has a second line, its own new/new."""
    searches = [
        CandidateSearch(STATUS_QUO, "old/old", held.old_query, held.old_gallery),
        CandidateSearch(FULL, "new/new", held.new_query, held.new_gallery),
    ]
    for one in candidates:
        searches += _searches(held, one)
    measure = {}
    if held.labels is not None or held.relevant is not None:
        labels = held.labels or (None, None)
        protocol = Protocol(labels[0], labels[1], held.relevant, held.exclude_self)
        measure = {place: protocol.search(each.query, each.gallery) for place, each in enumerate(searches)}
    return assess_candidates(searches, measure, exclude_self=held.exclude_self)


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """The one that did best on the validation rows, of those to the old space if there are some."""
    to_old = [one for one in candidates if one.direction == "to-old"]
    return max(to_old or candidates, key=lambda one: one.score)


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
        f"a map fitted on them ranks an item's own old vector at {ranks.mean():.0f} of {count} on average, "
        f"where chance gives {expected:.0f}: not the same items in the same order, or noise"
    )


def _searches(held: Held, one: Candidate) -> list[CandidateSearch]:
    encoder = load(one.folder, "cpu")

    def search(searched: str, query: Floats, gallery: Floats) -> CandidateSearch:
        return CandidateSearch(one.name, searched, query, gallery, one.choice, one.score)

    if one.direction == "to-new":
        return [search("new/mapped", held.new_query, encoder.encode(held.old_gallery))]
    query = encoder.encode(held.new_query)
    own = query if held.exclude_self else encoder.encode(held.new_gallery)
    return [search("new/old", query, held.old_gallery), search("new/new", query, own)]
