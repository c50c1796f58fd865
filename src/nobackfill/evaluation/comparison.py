"""Several searches over the same queries, compared: means, differences and their paired 95 % intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, Literal, TypeVar

import numpy as np

from nobackfill.evaluation.bootstrap import REPLICATES, Difference, Doubles, Interval, paired_bootstrap
from nobackfill.evaluation.scores import AGREEMENT, DECISIVE, title

FEWEST = 6
"""Queries, all of them better, by which a sign test tells a difference at 95 %: 2 · ½⁶ < .05."""
Key = TypeVar("Key", bound=Hashable)
Change = Mapping[str, Difference]
"""Score → how it changed against the status quo."""
Overall = Literal["better", "worse", "mixed", "cannot tell"]


class Comparison(Generic[Key]):
    """Values of one score or another, for the same queries and seeds, resampled together.

    Args:
        values: key → float64 [seeds, queries], in 0–1.
        replicates: of the bootstrap.
        seed: of its draws.
    """

    def __init__(self, values: Mapping[Key, Doubles], *, replicates: int = REPLICATES, seed: int = 0) -> None:
        self._column = {key: column for column, key in enumerate(values)}
        table = np.stack([np.asarray(one, np.float64) for one in values.values()])
        self._queries = table.mean(1)
        self._means, self._drawn = paired_bootstrap(table, replicates=replicates, seed=seed)

    def mean(self, key: Key) -> float:
        """Over seeds and queries."""
        return float(self._means[self._column[key]])

    def interval(self, key: Key) -> Interval:
        """The mean with its interval, which ends at 0 and 1 as the values do."""
        made = Interval.of(self._means[self._column[key]], self._drawn[:, self._column[key]])
        return Interval(made.mean, max(made.low, 0.0), min(made.high, 1.0))

    def difference(self, key: Key, base: Key) -> Difference:
        """One mean minus another, with the interval of the difference.

        It holds zero where fewer than `FEWEST` queries differ: even if all of them got better, that may be chance.
        """
        own, other = self._column[key], self._column[base]
        mean = self._means[own] - self._means[other]
        made = Difference.of(mean, self._drawn[:, own] - self._drawn[:, other])
        if np.count_nonzero(self._queries[own] != self._queries[other]) >= FEWEST:
            return made
        return Difference(made.mean, min(made.low, 0.0), max(made.high, 0.0))

    def replicates(self, keys: Sequence[Key]) -> Doubles:
        """Replicates of several means, paired, float64 [replicates, keys]."""
        chosen: Doubles = self._drawn[:, [self._column[key] for key in keys]]
        return chosen


def overall(change: Change) -> Overall:
    """One word for the scores that decide: one better and none worse is better."""
    words = {change[score].decision for score in decisive(change)} - {"cannot tell"}
    return "cannot tell" if not words else "mixed" if len(words) > 1 else words.pop()


def decisive(change: Change) -> list[str]:
    """The scores of a change that decide; all of them where it has none of those (such as agreement)."""
    return [score for score in DECISIVE if score in change] or list(change)


def sentence(change: Change, base: str) -> str:
    """A change in words, such as `top-1 +1.2 [+0.3, +2.1] points, mAP …: better than the status quo.`."""
    points = ", ".join(f"{title(score)} {change[score].points()} points" for score in decisive(change))
    return f"{points}: {found(change, base)}."


def found(change: Change, base: str) -> str:
    """What a change shows, such as `better than the status quo`; agreement shows whose answers are nearer only."""
    than = f"the new model's answers than {base}"
    words: dict[Overall, str] = {
        "better": f"nearer to {than}" if _agreement(change) else f"better than {base}",
        "worse": f"further from {than}" if _agreement(change) else f"worse than {base}",
        "mixed": "better in one and worse in the other",
        "cannot tell": f"cannot be told apart from {base}",
    }
    return words[overall(change)]


def word(change: Change) -> str:
    """`overall` as tables show it."""
    decision = overall(change)
    return {"better": "nearer", "worse": "further"}.get(decision, decision) if _agreement(change) else decision


def _agreement(change: Change) -> bool:
    return list(change) == [AGREEMENT]
