"""An upgrade assessed from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nobackfill.errors import DataError
from nobackfill.evaluation.assess import Upgrade, assess, upgrade_cells
from nobackfill.evaluation.backfilling import BackfillingCurve, Rule, backfilling_curve
from nobackfill.evaluation.bootstrap import REPLICATES
from nobackfill.evaluation.distances import Distance
from nobackfill.evaluation.relevance import Relevant
from nobackfill.evaluation.retrieval import RetrievalMetrics, retrieval_metrics

FEWEST_REPLICATES = 100  # fewer say nothing of percentiles
Vectors = ArrayLike | tuple[ArrayLike, ArrayLike | None]
"""Embeddings by one model: one array if the queries are the gallery's items, else (query, gallery)."""


@dataclass(frozen=True)
class Protocol:
    """What counts as a match, and how vectors are compared; see `retrieval_metrics`.

    Attributes:
        query_labels: integers [n_q].
        gallery_labels: integers [n_g].
        relevant: instead of labels.
        exclude_self: query i is gallery item i, which never finds itself.
        distance: how vectors are compared.
        device: where to search.
        rule: how the backfilling curve compares old and new scores; see `backfilling_curve`.
    """

    query_labels: ArrayLike | None = None
    gallery_labels: ArrayLike | None = None
    relevant: Relevant | None = None
    exclude_self: bool = False
    distance: Distance = "cosine"
    device: str = "cpu"
    rule: Rule = "auto"

    def search(self, query: ArrayLike, gallery: ArrayLike) -> RetrievalMetrics:
        """One search; raises `DataError`."""
        return retrieval_metrics(
            query, gallery, self.query_labels, self.gallery_labels,
            relevant=self.relevant, exclude_self=self.exclude_self, distance=self.distance, device=self.device,
        )  # fmt: skip

    def curve(
        self, query: ArrayLike, old_gallery: ArrayLike, new_gallery: ArrayLike, seed: int = 0
    ) -> BackfillingCurve:
        """The backfilling curve of new queries; raises `DataError`."""
        return backfilling_curve(
            query, old_gallery, new_gallery, self.query_labels, self.gallery_labels,
            relevant=self.relevant, exclude_self=self.exclude_self, distance=self.distance, device=self.device,
            rule=self.rule, seed=seed,
        )  # fmt: skip


def compare(
    old: Vectors,
    new: Vectors,
    query_labels: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    *,
    relevant: Relevant | None = None,
    independent: Vectors | None = None,
    exclude_self: bool | None = None,
    class_names: Sequence[str] | None = None,
    rule: Rule = "auto",
    distance: Distance = "cosine",
    replicates: int = REPLICATES,
    seed: int = 0,
    device: str = "cpu",
) -> Upgrade:
    """Assess an upgrade from the embeddings of one query set and one gallery by both models.

    Args:
        old: by the old model, floats [n, d_o] or (queries, gallery).
        new: by the new model; (queries, None) where the gallery has not been embedded anew.
        query_labels: integers [n_q].
        gallery_labels: integers [n_g]; may be left out where queries and gallery are the same items.
        relevant: instead of labels, see `retrieval_metrics`.
        independent: by a new model trained with no thought for the old one: the upper bound of new/new.
        exclude_self: query i is gallery item i, which never finds itself; None: so it is where `old` is one array.
        class_names: names by label.
        rule: how the backfilling curve compares old and new scores; see `backfilling_curve`.
        distance: `cosine` or `l2`, see `retrieval_metrics`.
        replicates: of the bootstrap, at least 100.
        seed: of all random draws.
        device: where to search.

    Raises:
        DataError: for anything `retrieval_metrics` refuses.
        ConfigError: for an unknown distance.
    """
    old_pair = _pair(old)
    same = old_pair[0] is old_pair[1]
    exclude_self = same if exclude_self is None else exclude_self
    if gallery_labels is None and (exclude_self or same):
        gallery_labels = query_labels
    if replicates < FEWEST_REPLICATES:
        raise DataError(f"replicates: expected at least {FEWEST_REPLICATES}, found {replicates}")
    protocol = Protocol(query_labels, gallery_labels, relevant, exclude_self, distance, device, rule)
    cells, curve = search_upgrade(protocol, old_pair, _pair(new), seed=seed)
    if independent is not None:
        query, gallery = _pair(independent)
        if gallery is None:
            raise DataError("compare: only the new model's gallery may be missing")
        cells["independent"] = protocol.search(query, gallery)
    return assess([cells], [curve] if curve else [], query_labels, class_names, replicates=replicates, seed=seed)


def search_upgrade(
    protocol: Protocol, old: tuple[ArrayLike, ArrayLike | None], new: tuple[ArrayLike, ArrayLike | None], seed: int = 0
) -> tuple[dict[str, RetrievalMetrics], BackfillingCurve | None]:
    """The cells of `assess`, and the curve where the new model's gallery is given.

    Args:
        protocol: what counts as a match.
        old: queries and gallery by the old model.
        new: queries and gallery by the new one.
        seed: of the curve's draws.

    Raises:
        DataError: for anything `retrieval_metrics` refuses, or without an old gallery.
    """
    (old_query, old_gallery), (new_query, new_gallery) = old, new
    if old_gallery is None:
        raise DataError("compare: only the new model's gallery may be missing")
    searches = {
        ("old", "old"): protocol.search(old_query, old_gallery),
        ("new", "old"): protocol.search(new_query, old_gallery),
    }
    curve = None
    if new_gallery is not None:
        searches["new", "new"] = protocol.search(new_query, new_gallery)
        curve = protocol.curve(new_query, old_gallery, new_gallery, seed)
    return upgrade_cells(searches, "old", "new"), curve


def _pair(vectors: Vectors) -> tuple[ArrayLike, ArrayLike | None]:
    if isinstance(vectors, tuple):
        return vectors
    # A list may be rows of numbers, or two tables.
    if isinstance(vectors, list) and len(vectors) == 2 and np.ndim(vectors[0]) == 2:
        return vectors[0], vectors[1]
    return vectors, vectors
