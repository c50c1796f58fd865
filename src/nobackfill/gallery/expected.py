"""What a new generation is worth to a gallery, measured on a sample of its items when it is added."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nobackfill.evaluation import backfilling_curve
from nobackfill.evaluation.mixing import fit_calibration_on, mixing_study
from nobackfill.gallery.backfill import Embedded
from nobackfill.gallery.gallery import Gallery
from nobackfill.gallery.lineage import Curve, Floats, Generation, unit_rows
from nobackfill.gallery.store import Store

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SLACK = 0.002  # of the area below top-1, which a calibration may cost at most


@dataclass(frozen=True)
class Sample:
    """Labelled items whose stored vectors are of one generation.

    Attributes:
        generation: its number.
        old: stored unit vectors [n, d_o]; `new`: the new model's [n, d].
        labels: int64 [n].
    """

    generation: int
    old: Floats
    new: Floats
    labels: NDArray[np.int64]


def sample_ids(store: Store, count: int, seed: int = 0) -> list[str]:
    """Some items of the gallery, at random."""
    ids = [name for number in store.counts() for name in store.ids(number)]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:count])
    return [ids[place] for place in chosen]


def labelled_sample(gallery: Gallery, generation: Generation, made: Embedded) -> list[Sample]:
    """The sampled items by stored generation, as far as they have labels and the new model answers that generation."""
    new = dict(zip(made.ids, unit_rows(made.vectors, generation.dim, "sample"), strict=True))
    return [
        Sample(
            items.generation,
            items.vectors,
            np.stack([new[name] for name in items.ids]),
            np.array([payload["label"] for payload in items.payloads]),
        )
        for items in gallery.store.fetch(made.ids)
        if gallery.manifest.generations[items.generation - 1].fingerprint in generation.answers
        and all("label" in payload for payload in items.payloads)
    ]


def expected_curve(samples: list[Sample]) -> Curve | None:
    """The backfilling curve of the sampled items among themselves; None unless all are of one generation.

    Each item is a query of the others. A sample is easier to search than the whole: what counts is the change.
    """
    if len(samples) != 1:
        return None
    one = samples[0]
    found = backfilling_curve(one.new, one.old, one.new, one.labels, one.labels, exclude_self=True, fractions=SHARES)
    return Curve(shares=SHARES, top1=found.scores["top1"], mean_ap=found.scores["mean_ap"], queries=found.queries)


def helpful_calibration(samples: list[Sample]) -> dict[int, tuple[float, float]]:
    """Factor and offset for the scores of each older generation, where the backfilling curve shows that they help.

    They are fitted on half of the queries and judged on the other half: kept if the area below mAP grows and that below
    top-1 does not shrink.
    """
    kept = {}
    for one in samples:
        rows = mixing_study(one.new, one.old, one.new, one.labels, one.labels, exclude_self=True, shares=SHARES)
        area = {
            (way, score): float(np.trapezoid([float(row[score]) for row in rows if row["way"] == way], SHARES))
            for way in ("inner", "calibrated")
            for score in ("top1", "mean_ap")
        }
        if (
            area["calibrated", "mean_ap"] > area["inner", "mean_ap"]
            and area["calibrated", "top1"] >= area["inner", "top1"] - SLACK
        ):
            relevant = one.labels[:, None] == one.labels[None]
            np.fill_diagonal(relevant, val=False)
            (old_factor, old_offset), (factor, offset) = fit_calibration_on(one.new, one.old, one.new, relevant)
            if factor > 0:
                kept[one.generation] = (old_factor / factor, (old_offset - offset) / factor)
    return kept
