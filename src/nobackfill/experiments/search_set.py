"""What models are searched with: every sample among all others, or of pairs the queries among the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.data import PairSamples, Samples, TextSamples
from nobackfill.errors import DataError
from nobackfill.evaluation.compare import Protocol
from nobackfill.evaluation.distances import Distance
from nobackfill.reports.examples import ItemSource

if TYPE_CHECKING:
    from nobackfill.models import Encoder

Sides = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Queries and gallery items, embedded by one model; the same array where every sample is both."""


@dataclass(frozen=True)
class SearchSet:
    """The samples of a split, as queries and as gallery."""

    samples: Samples

    @property
    def pairs(self) -> bool:
        """Whether queries and items are different texts, and relevance is known instead of labels."""
        return isinstance(self.samples, PairSamples)

    def encode(self, encoder: Encoder, workers: int) -> Sides:
        """Both sides by one model, each with the prompt of its role."""
        if isinstance(self.samples, PairSamples):
            return encoder.encode_set(self.samples.queries, workers), encoder.encode_set(
                self.samples.documents, workers
            )
        return (encoder.encode_set(self.samples, workers),) * 2

    def protocol(self, distance: Distance = "cosine") -> Protocol:
        """What counts as a match.

        Raises:
            DataError: if everything would.
        """
        if isinstance(self.samples, PairSamples):
            return Protocol(relevant=self.samples.relevant(), distance=distance)
        if (self.samples.labels == self.samples.labels[0]).all():
            raise DataError(
                f"{self.samples.origin}: no labels, or one class only: every answer would count as right; "
                "expected samples of two classes at least, or pairs"
            )
        return Protocol(self.samples.labels, self.samples.labels, exclude_self=True, distance=distance)

    @property
    def classes(self) -> tuple[NDArray[np.int64] | None, Sequence[str] | None]:
        """Labels of the queries and names of the classes, for the lines by class; of pairs there are none."""
        return (None, None) if self.pairs else (self.samples.labels, self.samples.class_names)

    def shown(self) -> tuple[ItemSource, ItemSource]:
        """What can be shown of queries and gallery items."""
        samples = self.samples
        if isinstance(samples, PairSamples):
            return ItemSource(None, texts=samples.queries.texts), ItemSource(None, texts=samples.documents.texts)
        if isinstance(samples, TextSamples):
            shown = ItemSource(samples.labels, samples.class_names, texts=samples.texts)
        else:
            shown = ItemSource.of(samples)
        return shown, shown
