"""What each fitted map is worth on held-out items, beside doing nothing and backfilling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nobackfill.arrays import Floats, unit
from nobackfill.evaluation.candidates import (
    FULL,
    STATUS_QUO,
    CandidateResult,
    CandidateSearch,
    assess_candidates,
    compared_among,
)
from nobackfill.evaluation.compare import Protocol
from nobackfill.evaluation.kinds import BOTH
from nobackfill.evaluation.neighbours import neighbours
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
    searches: list[CandidateSearch] = []
    measure: dict[int, RetrievalMetrics] = {}
    protocol, count = None, compared_among(len(held.new_gallery))
    if held.labels is not None or held.relevant is not None:
        labels = held.labels or (None, None)
        protocol = Protocol(labels[0], labels[1], held.relevant, held.exclude_self)

    def search(
        name: str, searched: str, query: Floats, gallery: Floats, choice: str = "", score: float | None = None
    ) -> None:
        if protocol is not None:
            measure[len(searches)] = protocol.search(query, gallery)
        nearest = neighbours(query, gallery, count, exclude_self=held.exclude_self)
        dim = min(query.shape[1], gallery.shape[1])
        searches.append(CandidateSearch(name, searched, dim, nearest, choice, score))

    search(STATUS_QUO, "old/old", held.old_query, held.old_gallery)
    search(FULL, "new/new", held.new_query, held.new_gallery)
    for one in candidates:
        for searched, query, gallery in _vectors(held, one):  # in memory no longer than they are searched
            search(one.name, searched, query, gallery, one.choice, one.score)
    to_old = [one for one in candidates if one.direction == "to-old" and one.queries == "new"]
    if to_old:
        best = max(to_old, key=lambda one: one.score)
        both = ((held.old_query, held.old_gallery), (load(best.folder, "cpu").encode(held.new_query), held.old_gallery))
        nearest = merged_nearest(both, count, exclude_self=held.exclude_self)
        if protocol is not None:
            measure[len(searches)] = merged_search(both, protocol)
        dim = held.old_gallery.shape[1]
        searches.append(CandidateSearch(RANK_MERGE, BOTH.searched, dim, nearest, f"with {best.name}"))
    return assess_candidates(searches, measure)


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """The one that did best on the validation rows, of those that need new queries only and no rewritten gallery.

    Where there are none, of those that need new queries only; else of all.
    """
    alone = [one for one in candidates if one.queries == "new"]
    to_old = [one for one in alone if one.direction == "to-old"]
    return max(to_old or alone or candidates, key=lambda one: one.score)


def _vectors(held: Held, one: Candidate) -> Iterator[tuple[str, Floats, Floats]]:
    """What is searched, in words, by which queries, and where."""
    encoder, kind = load(one.folder, "cpu"), kind_of(one)
    if one.direction == "to-new":
        items = held.old_gallery
        if one.inputs == "old + side" and held.side is not None:
            items = np.concatenate([unit(items, "old gallery"), unit(held.side, "side")], axis=1)
        query = held.new_query if one.query_folder is None else load(one.query_folder, "cpu").encode(held.new_query)
        yield kind.searched, query, encoder.encode(items)
        return
    if one.inputs == "old + new":
        both = np.concatenate([unit(held.old_query, "old queries"), unit(held.new_query, "new queries")], axis=1)
        yield kind.searched, encoder.encode(both), held.old_gallery
        return
    query = encoder.encode(held.new_query)
    yield kind.searched, query, held.old_gallery
    yield "new/new", query, query if held.exclude_self else encoder.encode(held.new_gallery)
