"""What backfilling will be worth, measured on a sample when a generation is added."""

from __future__ import annotations

import numpy as np

from nobackfill.evaluation import backfilling_curve
from nobackfill.gallery.backfill import Embedded
from nobackfill.gallery.gallery import Gallery
from nobackfill.gallery.lineage import Curve, Generation, unit_rows
from nobackfill.gallery.store import Store

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def sample_ids(store: Store, count: int, seed: int = 0) -> list[str]:
    """Some items of the gallery, at random."""
    ids = [name for number in store.counts() for name in store.ids(number)]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:count])
    return [ids[place] for place in chosen]


def expected_curve(gallery: Gallery, generation: Generation, made: Embedded) -> Curve | None:
    """The backfilling curve of the sampled items among themselves, old vectors against new.

    None where items have no label, their stored vectors are not all of one generation, or the new model does not answer
    it. Each item is a query of the others; a sample is easier to search than the whole, so what counts is the change.
    """
    held = [items for items in gallery.store.fetch(made.ids) if items.ids]
    if len(held) != 1 or any("label" not in payload for payload in held[0].payloads):
        return None
    older = gallery.manifest.generations[held[0].generation - 1]
    if older.fingerprint not in generation.answers:
        return None
    new = dict(zip(made.ids, unit_rows(made.vectors, generation.dim, "sample"), strict=True))
    ids = held[0].ids
    labels = np.array([payload["label"] for payload in held[0].payloads])
    vectors = np.stack([new[name] for name in ids])
    found = backfilling_curve(vectors, held[0].vectors, vectors, labels, labels, exclude_self=True, shares=SHARES)
    return Curve(shares=SHARES, top1=found.scores["top1"], mean_ap=found.scores["mean_ap"], queries=found.queries)
