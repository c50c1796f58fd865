"""The upgrades of a scenario: each method's step from one generation to the next, over its seeds."""

from __future__ import annotations

from dataclasses import dataclass, field

from nobackfill.config import INDEPENDENT
from nobackfill.evaluation import BackfillingCurve, RetrievalMetrics, assess, rank_methods
from nobackfill.evaluation.assess import upgrade_cells
from nobackfill.evaluation.scores import SCORES
from nobackfill.experiments.search_set import SearchSet, Sides
from nobackfill.reports.document import FlipExample, RankingSection, UpgradeSection
from nobackfill.reports.examples import flip_examples

Step = tuple[str, str, str]
"""Method, old and new generation."""


@dataclass
class ScenarioAssessment:
    """Gathers searches as they come and assesses every step once all are there.

    `add` is called for each search, seed by seed, generation by generation, older galleries first.
    """

    test: SearchSet
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
        new: Sides,
        old: Sides,
    ) -> None:
        """One search: query generation, gallery generation, its metrics, and both sides by either's model."""
        self.metrics[seed, method, query, gallery] = metrics
        position = self.generations.index(query)
        if position == 0 or gallery != self.generations[position - 1]:
            return
        step, protocol = (method, gallery, query), self.test.protocol()
        self.curves.setdefault(step, {})[seed] = protocol.curve(new[0], old[1], new[1], seed)
        if step not in self.examples:  # of the first seed alone
            before, (queries, items) = self._of(seed, method)[gallery, gallery], self.test.shown()
            self.examples[step] = flip_examples(
                before, metrics, old, (new[0], old[1]), queries, items, exclude_self=protocol.exclude_self
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
            result = assess(runs, list(curves.values()), *self.test.classes)
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
