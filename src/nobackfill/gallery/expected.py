"""What a new generation is worth to a gallery, and by which rules its scores are compared: measured on a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import ConfigError
from nobackfill.evaluation import backfilling_curve
from nobackfill.evaluation.rule_choice import RuleChoice, choose_rule
from nobackfill.evaluation.scoring_rules import RULES, RuleName
from nobackfill.gallery.embedders.base import Embedded
from nobackfill.gallery.lineage import ExpectedCurve, Generation, Manifest
from nobackfill.gallery.stores.base import Floats, Payload, Store

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
Rule = RuleName | Literal["auto"]


@dataclass(frozen=True)
class PairedSample:
    """Sampled items whose stored vectors are of one generation.

    Attributes:
        generation: its number.
        old: stored unit vectors [n, d_o].
        new: the new model's unit vectors [n, d] of the same items.
        labels: int64 [n], if two items have the same; that of an item without a label is no other's.
    """

    generation: int
    old: Floats
    new: Floats
    labels: NDArray[np.int64] | None


def paired_samples(
    store: Store, manifest: Manifest, generation: Generation, embedded: Embedded, rows: Floats
) -> list[PairedSample]:
    """The sampled items by stored generation, as far as the new model is compatible with that.

    Args:
        store: of the gallery.
        manifest: of the gallery.
        generation: the new one.
        embedded: the sampled items.
        rows: their new unit vectors, float32 [n, d].
    """
    new = dict(zip(embedded.ids, rows, strict=True))
    return [
        PairedSample(
            items.generation, items.vectors, np.stack([new[name] for name in items.ids]), _labels(items.payloads)
        )
        for items in store.fetch(list(embedded.ids))
        if items.generation <= manifest.newest  # else another process upgraded meanwhile
        and manifest.generations[items.generation - 1].fingerprint in generation.compatible_with
    ]


def choose_rules(samples: list[PairedSample], rule: Rule = "auto", seed: int = 0) -> dict[int, RuleChoice]:
    """A scoring rule for each older generation that was sampled, by its number; see `evaluation.rule_choice`."""
    names = RULES if rule == "auto" else (rule,)
    return {one.generation: choose_rule(one.old, one.new, one.labels, names=names, seed=seed) for one in samples}


def check_rule(name: str) -> Rule:
    """A rule's name, or `auto`; else `ConfigError`."""
    if name == "auto":
        return "auto"
    for known in RULES:
        if name == known:
            return known
    raise ConfigError(f"--rule {name!r}: expected auto, {', '.join(RULES)}")


def expected_curve(samples: list[PairedSample], choices: Mapping[int, RuleChoice]) -> ExpectedCurve | None:
    """The backfilling curve of the sampled items among themselves; None unless all are of one generation, with labels.

    Each item that shares its label with another is a query of the others. A sample is easier to search than the whole:
    what counts is the change.
    """
    if len(samples) != 1 or samples[0].labels is None:
        return None
    one = samples[0]
    curve = backfilling_curve(
        one.new, one.old, one.new, one.labels, one.labels,
        exclude_self=True, fractions=FRACTIONS, rule=choices[one.generation].rule,
    )  # fmt: skip
    return ExpectedCurve(
        fractions=FRACTIONS, top1=curve.scores["top1"], mean_ap=curve.scores["mean_ap"], queries=curve.queries
    )


def _labels(payloads: Sequence[Payload]) -> NDArray[np.int64] | None:
    """Numbers for the labels, which may be any text or number; a label that is missing or null is none."""
    names = [payload.get("label") for payload in payloads]
    texts = [f"item {place}" if name is None else f"label {name!r}" for place, name in enumerate(names)]
    _, numbers = np.unique(texts, return_inverse=True)
    return numbers.astype(np.int64) if len(np.unique(numbers)) < len(numbers) else None
