"""Searches whose first answer an upgrade changed, with pictures and texts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from nobackfill.data import ImageSamples, Samples
from nobackfill.data.preprocessing import read_image
from nobackfill.evaluation import RetrievalMetrics
from nobackfill.evaluation.distances import Distance, comparable
from nobackfill.reports.document import FlipExample, ShownItem

EACH = 6  # examples of either kind
NEIGHBOURS = 5
LONGEST = 2000  # characters of a text
SIDE = 96  # of a thumbnail, in pixels


@dataclass(frozen=True)
class ItemSource:
    """What can be shown of queries or gallery items, by position; None where there is nothing of the kind."""

    labels: NDArray[np.int64] | None
    class_names: Sequence[str] | None = None
    images: ImageSamples | None = None
    texts: Sequence[str] | None = None

    @classmethod
    def of(cls, samples: Samples) -> ItemSource:
        """All that a data set has."""
        images = samples if isinstance(samples, ImageSamples) else None
        return cls(samples.labels, samples.class_names, images, images.captions if images else None)

    def show(self, position: int, label: int | None = None) -> ShownItem:
        """One item: its name, label, picture, text, and whether its label is the one given."""
        own = None if self.labels is None else int(self.labels[position])
        name = f"item {position}"
        if self.images is not None and not isinstance(self.images.images, np.ndarray):
            name = Path(str(self.images.images[position])).name
        return ShownItem(
            name=name,
            label=None if own is None else self.class_names[own] if self.class_names else str(own),
            right=None if label is None else own == label,
            image=None if self.images is None else thumbnail(self.images, position),
            text=None if self.texts is None else _cut(self.texts[position]),
        )


def flip_examples(
    before: RetrievalMetrics,
    after: RetrievalMetrics,
    old: tuple[ArrayLike, ArrayLike],
    new: tuple[ArrayLike, ArrayLike],
    queries: ItemSource,
    gallery: ItemSource,
    *,
    exclude_self: bool,
    distance: Distance = "cosine",
    seed: int = 0,
) -> list[FlipExample]:
    """Some queries, drawn at random, that were right and are wrong (`negative`), then some the other way round.

    Args:
        before: metrics of the old queries in the old gallery.
        after: metrics of the new queries in the old gallery.
        old: (queries, gallery) of the search before, floats [n, d].
        new: (queries, gallery) of the search after.
        queries: what can be shown of a query; its labels say which answers are right.
        gallery: what can be shown of an answer.
        exclude_self: query i is gallery item i.
        distance: how vectors are compared.
        seed: of the draw.
    """
    was, now = before.first_match == 1, after.first_match == 1
    random = np.random.default_rng(seed)
    flips: list[tuple[Literal["negative", "positive"], NDArray[np.bool_]]] = [
        ("negative", before.counted & was & ~now),
        ("positive", before.counted & ~was & now),
    ]
    examples = []
    for kind, flipped in flips:
        chosen = np.sort(random.permutation(np.flatnonzero(flipped))[:EACH])
        answers = [_nearest(pair, chosen, exclude_self, distance) for pair in (old, new)]
        for row, query in enumerate(chosen):
            label = None if queries.labels is None else int(queries.labels[query])
            shown = [[gallery.show(int(item), label) for item in side[row]] for side in answers]
            examples.append(FlipExample(flip=kind, query=queries.show(int(query)), old=shown[0], new=shown[1]))
    return examples


def thumbnail(images: ImageSamples, position: int) -> str:
    """An image as a data address, at most 96 pixels wide and high."""
    picture = images.images[position]
    image = Image.fromarray(picture if isinstance(picture, np.ndarray) else read_image(picture))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small = max(image.size) <= SIDE // 2  # a few bytes either way, and no blocks where they would be seen
    image.save(buffer, "PNG") if small else image.save(buffer, "JPEG", quality=80)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _nearest(
    pair: tuple[ArrayLike, ArrayLike], chosen: NDArray[np.int64], exclude_self: bool, distance: Distance
) -> NDArray[np.int64]:
    if not len(chosen):
        return np.empty((0, 0), np.int64)
    query, gallery = comparable(np.asarray(pair[0])[chosen], pair[1], distance)
    scores = query @ gallery.T
    if exclude_self:
        scores[np.arange(len(chosen)), chosen] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(gallery) - exclude_self)]
