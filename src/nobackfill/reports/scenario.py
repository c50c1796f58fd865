"""The judgements of a scenario: each method's step from one generation to the next, over all seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nobackfill.config import INDEPENDENT
from nobackfill.data import Samples
from nobackfill.evaluation import Curve, Ranking, RetrievalMetrics, Upgrade, backfilling_curve, judge, rank
from nobackfill.reports.examples import Items, flip_examples
from nobackfill.reports.figures import SCORES

Vectors = NDArray[np.float32]
Step = tuple[str, str, str]  # method, old and new generation


@dataclass
class Judgements:
    """Gathers searches as they come and judges every step once all are there.

    `add` is called for each search, seed by seed, generation by generation, older galleries first.
    """

    test: Samples
    generations: list[str]
    cells: dict[tuple[int, str, str, str], RetrievalMetrics] = field(default_factory=dict)
    curves: dict[Step, list[Curve]] = field(default_factory=dict)
    examples: dict[Step, list[dict[str, Any]]] = field(default_factory=dict)

    def add(
        self,
        method: str,
        seed: int,
        query: str,
        gallery: str,
        metrics: RetrievalMetrics,
        vectors: tuple[Vectors, Vectors],
    ) -> None:
        """One search: query generation, gallery generation, their metrics and vectors."""
        self.cells[seed, method, query, gallery] = metrics
        position = self.generations.index(query)
        if position == 0 or gallery != self.generations[position - 1]:
            return
        step, (new, old), labels = (method, gallery, query), vectors, self.test.labels
        self.curves.setdefault(step, []).append(
            backfilling_curve(new, old, new, labels, labels, exclude_self=True, seed=seed)
        )
        if step not in self.examples:  # of the first seed alone
            before, shown = self._cell(seed, method, gallery, gallery), Items.of(self.test)
            self.examples[step] = flip_examples(
                before, metrics, (old, old), (new, old), shown, shown, exclude_self=True
            )

    def judged(self) -> list[tuple[Step, Upgrade]]:
        """The upgrade of every step, in the order the steps came."""
        seeds = sorted({key[0] for key in self.cells})
        found = []
        for step, curves in self.curves.items():
            method, old, new = step
            runs = [
                {
                    "old/old": self._cell(seed, method, old, old),
                    "new/old": self.cells[seed, method, new, old],
                    "new/new": self.cells[seed, method, new, new],
                    INDEPENDENT: self.cells[seed, INDEPENDENT, new, new],
                }
                for seed in seeds
            ]
            found.append((step, judge(runs, curves, self.test.labels, self.test.class_names)))
        return found

    def rankings(self) -> list[tuple[str, str, str, Ranking]]:
        """Query generation, gallery, score and the methods' ranking there; all but the first generation's."""
        pairs = dict.fromkeys((query, gallery) for _, _, query, gallery in self.cells if query != self.generations[0])
        found = []
        for query, gallery in pairs:
            searches: dict[str, list[RetrievalMetrics]] = {}
            for (_, method, *names), metrics in self.cells.items():  # seeds come in order
                if names == [query, gallery]:
                    searches.setdefault(method, []).append(metrics)
            found += [(query, gallery, score, rank(searches, score)) for score in SCORES]
        return found

    def _cell(self, seed: int, method: str, query: str, gallery: str) -> RetrievalMetrics:
        first = query == gallery == self.generations[0]  # one model for every method
        return self.cells[seed, INDEPENDENT if first else method, query, gallery]
