"""Methods compared with each other: which differences between two ways of training are real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nobackfill.errors import DataError
from nobackfill.evaluation.bootstrap import REPLICATES, Difference, Doubles
from nobackfill.evaluation.comparison import Comparison
from nobackfill.evaluation.retrieval import RetrievalMetrics

Seeds = tuple[int, ...]


@dataclass(frozen=True)
class MethodScore:
    """A method's mean over its seeds and the queries, in 0–1."""

    method: str
    score: float
    seeds: int


@dataclass(frozen=True)
class PairDifference:
    """The score of `method` minus that of `against`, over the seeds that both have."""

    method: str
    against: str
    difference: Difference
    seeds: int


@dataclass(frozen=True)
class MethodRanking:
    """The methods of one score.

    Attributes:
        methods: best first.
        pairs: every pair with a seed in common, the higher method first.
    """

    methods: tuple[MethodScore, ...]
    pairs: tuple[PairDifference, ...]

    def difference(self, method: str, against: str) -> Difference | None:
        """Of two methods in either order; None where they have no seed in common."""
        for pair in self.pairs:
            if (pair.method, pair.against) == (method, against):
                return pair.difference
            if (pair.against, pair.method) == (method, against):
                return Difference(-pair.difference.mean, -pair.difference.high, -pair.difference.low)
        return None

    def level_with(self, method: str) -> list[str]:
        """The other methods that cannot be told from this one, best first."""
        leads = {each.method: self.difference(method, each.method) for each in self.methods if each.method != method}
        return [other for other, lead in leads.items() if lead is None or lead.decision == "cannot tell"]


def rank_methods(
    searches: Mapping[str, Mapping[int, RetrievalMetrics]],
    score: str,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> MethodRanking:
    """Rank methods by one score, with a 95 % interval for each difference.

    Each interval stands for itself: of twenty pairs that are truly level, one is expected to look different. With one
    seed an interval knows of the queries' chance alone.

    Args:
        searches: method → seed of a training run → its search, of the same queries in galleries of the same items.
        score: a key of `scores.SCORES`.
        replicates: of the bootstrap, paired over seeds and queries.
        seed: of its draws.

    Raises:
        DataError: if two searches count other queries.
    """
    counted = next(iter(next(iter(searches.values())).values())).counted
    if any(not np.array_equal(one.counted, counted) for runs in searches.values() for one in runs.values()):
        raise DataError("rank: expected the same queries of every method and seed")
    values = {
        method: {number: metrics.per_query(score)[counted] for number, metrics in sorted(runs.items())}
        for method, runs in searches.items()
    }
    means = {method: float(np.stack(list(runs.values())).mean()) for method, runs in values.items()}
    order = sorted(values, key=lambda method: -means[method])
    common = {pair: _common(values, pair) for pair in combinations(order, 2)}
    compared = {seeds: _compared(values, seeds, replicates, seed) for seeds in set(common.values()) if seeds}
    return MethodRanking(
        tuple(MethodScore(method, means[method], len(values[method])) for method in order),
        tuple(
            PairDifference(*pair, compared[seeds].difference(*pair), len(seeds))
            for pair, seeds in common.items()
            if seeds
        ),
    )


def _common(values: Mapping[str, Mapping[int, Doubles]], pair: tuple[str, str]) -> Seeds:
    return tuple(sorted(set(values[pair[0]]) & set(values[pair[1]])))


def _compared(values: Mapping[str, Mapping[int, Doubles]], seeds: Seeds, replicates: int, seed: int) -> Comparison[str]:
    """Of all methods that have these seeds."""
    table = {
        method: np.stack([runs[number] for number in seeds])
        for method, runs in values.items()
        if set(seeds) <= set(runs)
    }
    return Comparison(table, replicates=replicates, seed=seed)
