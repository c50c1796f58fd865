"""What a new generation is worth to a gallery, measured on a sample of its items when it is added."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nobackfill.gallery.embedders.base import Embedded
from nobackfill.gallery.lineage import ExpectedCurve, Generation, Manifest
from nobackfill.gallery.stores.base import Floats, Store

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SLACK = 0.002  # of the area below top-1, which a calibration may cost at most


@dataclass(frozen=True)
class LabelledSample:
    """Labelled items whose stored vectors are of one generation.

    Attributes:
        generation: its number.
        old: stored unit vectors [n, d_o].
        new: the new model's unit vectors [n, d] of the same items.
        labels: int64 [n].
    """

    generation: int
    old: Floats
    new: Floats
    labels: NDArray[np.int64]


def labelled_samples(
    store: Store, manifest: Manifest, generation: Generation, embedded: Embedded, rows: Floats
) -> list[LabelledSample]:
    """The sampled items by stored generation, as far as they have labels and the new model is compatible with that.

    Args:
        store: of the gallery.
        manifest: of the gallery.
        generation: the new one.
        embedded: the sampled items.
        rows: their new unit vectors, float32 [n, d].
    """
    new = dict(zip(embedded.ids, rows, strict=True))
    return [
        LabelledSample(
            items.generation,
            items.vectors,
            np.stack([new[name] for name in items.ids]),
            np.array([payload["label"] for payload in items.payloads]),
        )
        for items in store.fetch(list(embedded.ids))
        if manifest.generations[items.generation - 1].fingerprint in generation.compatible_with
        and all("label" in payload for payload in items.payloads)
    ]


def expected_curve(samples: list[LabelledSample]) -> ExpectedCurve | None:
    """The backfilling curve of the sampled items among themselves; None unless all are of one generation.

    Each item is a query of the others. A sample is easier to search than the whole: what counts is the change.
    """
    if len(samples) != 1:
        return None
    from nobackfill.evaluation import backfilling_curve

    one = samples[0]
    curve = backfilling_curve(one.new, one.old, one.new, one.labels, one.labels, exclude_self=True, fractions=FRACTIONS)
    return ExpectedCurve(
        fractions=FRACTIONS, top1=curve.scores["top1"], mean_ap=curve.scores["mean_ap"], queries=curve.queries
    )


def helpful_calibration(samples: list[LabelledSample]) -> dict[int, tuple[float, float]]:
    """Factor and offset for the scores of each older generation, where the backfilling curve shows that they help.

    They are fitted on half of the queries and assessed on the other half: kept if the area below mAP grows and that
    below top-1 does not shrink.
    """
    from nobackfill.evaluation.mixing import fit_calibration_on, mixing_study

    kept = {}
    for one in samples:
        rows = mixing_study(one.new, one.old, one.new, one.labels, one.labels, exclude_self=True, fractions=FRACTIONS)
        area = {
            (rule, score): float(np.trapezoid([float(row[score]) for row in rows if row["rule"] == rule], FRACTIONS))
            for rule in ("inner", "calibrated")
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
