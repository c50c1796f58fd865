"""What each fitted map is worth on held-out items, beside doing nothing and backfilling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nobackfill.arrays import Floats, unit
from nobackfill.evaluation.candidates import (
    FULL,
    NEAREST,
    STATUS_QUO,
    CandidateResult,
    CandidateSearch,
    assess_candidates,
)
from nobackfill.evaluation.compare import Protocol
from nobackfill.evaluation.kinds import BOTH
from nobackfill.evaluation.rank_merge import merged_nearest, merged_search
from nobackfill.evaluation.retrieval import RetrievalMetrics
from nobackfill.maps.fits import kind_of
from nobackfill.maps.pairs import Held
from nobackfill.maps.task import Candidate
from nobackfill.models import load

RANK_MERGE = "rank merge"


def assess_fits(held: Held, candidates: Sequence[Candidate]) -> list[CandidateResult]:
    """Status quo and full backfill first, then a line a candidate; one to old has a second line, its own new/new.

    Last the rank merge of the old search with that of the best map of new queries to the old space: what asking both
    models costs nothing more to give.
    """
    searches = [
        CandidateSearch(STATUS_QUO, "old/old", held.old_query, held.old_gallery),
        CandidateSearch(FULL, "new/new", held.new_query, held.new_gallery),
    ]
    for one in candidates:
        searches += _searches(held, one)
    measure: dict[int, RetrievalMetrics] = {}
    protocol = None
    if held.labels is not None or held.relevant is not None:
        labels = held.labels or (None, None)
        protocol = Protocol(labels[0], labels[1], held.relevant, held.exclude_self)
        measure = {place: protocol.search(each.query, each.gallery) for place, each in enumerate(searches)}
    to_old = [one for one in candidates if one.direction == "to-old" and one.queries == "new"]
    if to_old:
        best = max(to_old, key=lambda one: one.score)
        both = ((held.old_query, held.old_gallery), (load(best.folder, "cpu").encode(held.new_query), held.old_gallery))
        nearest = merged_nearest(both, NEAREST, exclude_self=held.exclude_self)
        if protocol is not None:
            measure[len(searches)] = merged_search(both, protocol)
        words = f"with {best.name}"
        searches.append(CandidateSearch(RANK_MERGE, BOTH.searched, *both[0], words, None, nearest))
    return assess_candidates(searches, measure, exclude_self=held.exclude_self)


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """The one that did best on the validation rows, of those that need new queries only and no rewritten gallery.

    Where there are none, of those that need new queries only; else of all.
    """
    alone = [one for one in candidates if one.queries == "new"]
    to_old = [one for one in alone if one.direction == "to-old"]
    return max(to_old or alone or candidates, key=lambda one: one.score)


def _searches(held: Held, one: Candidate) -> list[CandidateSearch]:
    encoder, kind = load(one.folder, "cpu"), kind_of(one)

    def search(searched: str, query: Floats, gallery: Floats) -> CandidateSearch:
        return CandidateSearch(one.name, searched, query, gallery, one.choice, one.score)

    if one.direction == "to-new":
        items = held.old_gallery
        if one.inputs == "old + side" and held.side is not None:
            items = np.concatenate([unit(items, "old gallery"), unit(held.side, "side")], axis=1)
        query = held.new_query if one.query_folder is None else load(one.query_folder, "cpu").encode(held.new_query)
        return [search(kind.searched, query, encoder.encode(items))]
    if one.inputs == "old + new":
        both = np.concatenate([unit(held.old_query, "old queries"), unit(held.new_query, "new queries")], axis=1)
        return [search(kind.searched, encoder.encode(both), held.old_gallery)]
    query = encoder.encode(held.new_query)
    own = query if held.exclude_self else encoder.encode(held.new_gallery)
    return [search(kind.searched, query, held.old_gallery), search("new/new", query, own)]
