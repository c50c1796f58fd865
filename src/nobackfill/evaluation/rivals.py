"""Methods against each other: which differences between two ways of training are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nobackfill.errors import DataError
from nobackfill.evaluation.bootstrap import REPLICATES, Difference, paired_bootstrap
from nobackfill.evaluation.retrieval import RetrievalMetrics


@dataclass(frozen=True)
class Ranking:
    """The methods of one score, best first.

    Attributes:
        methods: names, by falling score.
        scores: method → mean over seeds and queries, in 0–1.
        differences: (higher, lower) → the first's score minus the second's, for every pair in that order.
        seeds: training runs of each method; with one, an interval knows of the queries' chance alone.
    """

    methods: tuple[str, ...]
    scores: dict[str, float]
    differences: dict[tuple[str, str], Difference]
    seeds: int

    def level_with(self, method: str) -> list[str]:
        """The other methods that cannot be told from this one, best first."""
        others = [other for other in self.methods if other != method]
        found = {other: self.differences.get((method, other)) or self.differences[other, method] for other in others}
        return [other for other in others if found[other].word == "cannot tell"]


def rank(
    searches: Mapping[str, Sequence[RetrievalMetrics]], score: str, *, replicates: int = REPLICATES, seed: int = 0
) -> Ranking:
    """Rank methods by one score, with a 95 % interval for each difference.

    Each interval stands for itself: of twenty pairs that are truly level, one is expected to look different.

    Args:
        searches: method → its search by each training run (seed), of the same queries in galleries of the same items.
        score: `top1`, `top5` or `mean_ap`.
        replicates: of the bootstrap, paired over seeds and queries.
        seed: of its draws.

    Raises:
        DataError: if two searches count other queries.
    """
    counted = next(iter(searches.values()))[0].first_match > 0
    if len({len(runs) for runs in searches.values()}) != 1 or any(
        not np.array_equal(found.first_match > 0, counted) for runs in searches.values() for found in runs
    ):
        raise DataError("rank: expected the same queries and as many seeds of every method")
    table = np.stack([[found.per_query(score)[counted] for found in runs] for runs in searches.values()])
    means, drawn = paired_bootstrap(table.astype(np.float64), replicates=replicates, seed=seed)
    names = list(searches)
    order = sorted(range(len(names)), key=lambda position: -means[position])
    return Ranking(
        methods=tuple(names[position] for position in order),
        scores={names[position]: float(means[position]) for position in order},
        differences={
            (names[a], names[b]): Difference.of(means[a] - means[b], drawn[:, a] - drawn[:, b])
            for a, b in combinations(order, 2)
        },
        seeds=table.shape[1],
    )
