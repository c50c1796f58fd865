"""How far a gallery is: items by generation, a backfill's progress, the expected quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nobackfill.evaluation.scores import AGREEMENT, title
from nobackfill.gallery.job import Job, read_job, tallied
from nobackfill.gallery.lineage import Generation, Manifest, load_manifest
from nobackfill.gallery.pair_rules import PairRule
from nobackfill.gallery.scope import Scope, inside, scope_filter
from nobackfill.gallery.stores.base import Store


@dataclass(frozen=True)
class GalleryStatus:
    """A gallery at one moment.

    Attributes:
        generations: of the lineage, oldest first.
        items: by generation, in the same order.
        job: the last backfill, if there was one.
        serves_from: number of the oldest generation that is searched and whose queries are answered.
        rules: how scores of the newest model's queries with older generations are compared.
    """

    generations: tuple[Generation, ...]
    items: tuple[int, ...]
    job: Job | None
    serves_from: int = 1
    rules: tuple[PairRule, ...] = ()

    @property
    def newest(self) -> Generation:
        """The model that a backfill goes to."""
        return self.generations[-1]

    @property
    def total(self) -> int:
        """Items of all generations."""
        return sum(self.items)

    @property
    def fraction(self) -> float:
        """Of the items that have vectors of the newest generation."""
        return self.items[-1] / self.total if self.total else 0.0

    @property
    def main_rule(self) -> PairRule | None:
        """The rule for the older generation of which there are most items."""
        return max(self.rules, key=lambda rule: self.items[rule.stored - 1], default=None)

    @property
    def expected(self) -> dict[str, float] | None:
        """What the newest model's queries are worth now, as far as it was measured.

        Top-1 and mAP where the items have labels; `overlap`, agreement with the new model, in any case.
        """
        scores: dict[str, float] = {}
        if self.newest.curve is not None:
            scores = dict(zip(("top1", "mean_ap"), self.newest.curve.at(self.fraction), strict=True))
        if self.main_rule and (curve := self.main_rule.agreement):
            scores[AGREEMENT] = float(np.interp(self.fraction, curve.fractions, curve.values))
        return scores or None

    @property
    def items_per_second(self) -> float:
        """Of the last backfill: lately while it runs, else over all of it."""
        if self.job is None:
            return 0.0
        return self.job.rate or (self.job.done / self.job.seconds if self.job.seconds else 0.0)

    @property
    def seconds_left(self) -> float:
        """Until an unfinished backfill is done, at its present rate; NaN before its first batch."""
        if self.job is None or self.job.finished:
            return 0.0
        rate = self.items_per_second
        return (self.job.items - self.job.done) / rate if rate else float("nan")


def status_of(store: Store, scope: Scope) -> GalleryStatus:
    """See `Gallery.status`."""
    manifest, counts, job = load_manifest(store), store.counts(scope_filter(scope)), read_job(store)
    job = job and tallied(store, job)
    if scope and job and job.errors:  # which name items, and what was wrong with their content
        own = inside(scope, store.payloads(list(job.errors)))
        job = job.model_copy(update={"errors": {name: job.errors[name] for name in own}})
    items = tuple(counts.get(number, 0) for number in range(1, manifest.newest + 1))
    rules = tuple(rule for rule in manifest.rules if rule.query == manifest.newest)
    return GalleryStatus(manifest.generations, items, job, manifest.serves_from, rules)


def rule_warning(manifest: Manifest) -> str | None:
    """One line if searches by the newest generation may get worse during a backfill to it; None if not."""
    pairs = (pair for pair in manifest.rules if pair.query == manifest.newest and pair.may_fall)
    falling = [(pair.curve, pair) for pair in pairs if pair.curve]
    if not falling:
        return None
    curve, worst = max(falling, key=lambda each: each[0].largest_fall)
    new, old = manifest.name(worst.query), manifest.name(worst.stored)
    return (
        f"warning: searches by {new} may get worse during the backfill (on the sample, {title(curve.score)} falls by "
        f"{100 * curve.largest_fall:.1f} points from one tenth to the next under the rule {worst.rule}); search with "
        f"{old} until the backfill is complete, then switch"
    )
