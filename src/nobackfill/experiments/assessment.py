"""The upgrades of a scenario: each method's step from one generation to the next, over its seeds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nobackfill.config import INDEPENDENT
from nobackfill.data import Samples
from nobackfill.evaluation import BackfillingCurve, RetrievalMetrics, assess, backfilling_curve, rank_methods
from nobackfill.evaluation.assess import upgrade_cells
from nobackfill.evaluation.scores import SCORES
from nobackfill.reports.document import FlipExample, RankingSection, UpgradeSection
from nobackfill.reports.examples import ItemSource, flip_examples

Vectors = NDArray[np.float32]
Step = tuple[str, str, str]
"""Method, old and new generation."""


@dataclass
class ScenarioAssessment:
    """Gathers searches as they come and assesses every step once all are there.

    `add` is called for each search, seed by seed, generation by generation, older galleries first.
    """

    test: Samples
    generations: list[str]
    metrics: dict[tuple[int, str, str, str], RetrievalMetrics] = field(default_factory=dict)
    """By seed, method, query and gallery."""
    curves: dict[Step, dict[int, BackfillingCurve]] = field(default_factory=dict)
    """By step and seed."""
    examples: dict[Step, list[FlipExample]] = field(default_factory=dict)

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
        self.metrics[seed, method, query, gallery] = metrics
        position = self.generations.index(query)
        if position == 0 or gallery != self.generations[position - 1]:
            return
        step, (new, old), labels = (method, gallery, query), vectors, self.test.labels
        self.curves.setdefault(step, {})[seed] = backfilling_curve(
            new, old, new, labels, labels, exclude_self=True, seed=seed
        )
        if step not in self.examples:  # of the first seed alone
            before, shown = self._of(seed, method)[gallery, gallery], ItemSource.of(self.test)
            self.examples[step] = flip_examples(
                before, metrics, (old, old), (new, old), shown, shown, exclude_self=True
            )

    def upgrades(self) -> list[UpgradeSection]:
        """Every step in the order they came, the upper bound's last; each over the seeds its method has."""
        sections = []
        for step, curves in self.curves.items():
            method, old, new = step
            runs = [
                upgrade_cells(self._of(seed, method), old, new, self.metrics[seed, INDEPENDENT, new, new])
                for seed in curves
            ]
            result = assess(runs, list(curves.values()), self.test.labels, self.test.class_names)
            sections.append(
                UpgradeSection(method=method, old=old, new=new, result=result, examples=self.examples[step])
            )
        return sorted(sections, key=lambda section: section.method == INDEPENDENT)

    def rankings(self) -> list[RankingSection]:
        """The methods compared by every score of every search, but for the first generation's."""
        pairs = dict.fromkeys((query, gallery) for _, _, query, gallery in self.metrics if query != self.generations[0])
        sections = []
        for query, gallery in pairs:
            searches: dict[str, dict[int, RetrievalMetrics]] = {}
            for (seed, method, *names), metrics in self.metrics.items():
                if names == [query, gallery]:
                    searches.setdefault(method, {})[seed] = metrics
            sections += [
                RankingSection(query=query, gallery=gallery, score=score, ranking=rank_methods(searches, score))
                for score in SCORES
            ]
        return sections

    def _of(self, seed: int, method: str) -> dict[tuple[str, str], RetrievalMetrics]:
        """One run's searches by query and gallery; the first generation has one model for every method."""
        first = self.generations[0]
        own = {
            (query, gallery): metrics
            for (number, name, query, gallery), metrics in self.metrics.items()
            if (number, name) == (seed, method)
        }
        return {(first, first): self.metrics[seed, INDEPENDENT, first, first], **own}
