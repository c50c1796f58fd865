"""The kinds of sample, by the kind that the section `data` of a config names. To add one: its line in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nobackfill.config import DataSection, Kind
from nobackfill.data.images import image_loader, load_images, summarise_images
from nobackfill.data.pairs import load_pairs, pair_loader, summarise_pairs
from nobackfill.data.samples import Samples
from nobackfill.data.splits import Split
from nobackfill.data.summary import DataSummary
from nobackfill.data.texts import load_texts, summarise_texts, text_loader
from nobackfill.data.vectors import load_vectors, summarise_vectors, vector_loader

if TYPE_CHECKING:
    import torch

    from nobackfill.data.loader import Loader


@dataclass(frozen=True)
class KindOfSample:
    """What can be done with a kind of sample; each function takes its own section of a config.

    Attributes:
        load: see `load_split`.
        summarise: see `summarise`.
        loader: see `open_loader`.
    """

    load: Callable[[Any, Split], Samples]
    summarise: Callable[[Any], DataSummary]
    loader: Callable[..., Loader]


KINDS: dict[Kind, KindOfSample] = {
    "image": KindOfSample(load_images, summarise_images, image_loader),
    "vector": KindOfSample(load_vectors, summarise_vectors, vector_loader),
    "text": KindOfSample(load_texts, summarise_texts, text_loader),
    "pair": KindOfSample(load_pairs, summarise_pairs, pair_loader),
}


def load_split(data: DataSection, split: Split) -> Samples:
    """All samples of one split, every class; labels are class numbers 0 … classes−1.

    Raises:
        DataError: naming the folder or file that is missing or unusable.
    """
    return KINDS[data.kind].load(data, split)


def summarise(data: DataSection) -> DataSummary:
    """What is known of the training split before it is read; raises `DataError` for files that do not fit together."""
    return KINDS[data.kind].summarise(data)


def open_loader(
    samples: Samples, preprocessing: object, data: DataSection, device: torch.device, *, resident: bool = False
) -> Loader:
    """Serves samples for training.

    Args:
        samples: of the kind of `data`.
        preprocessing: of the encoder that trains.
        data: the section of the config: how training views are made, and by how many processes.
        device: where batches are wanted.
        resident: keep all samples there, if they are arrays.
    """
    return KINDS[data.kind].loader(samples, preprocessing, data, device, resident=resident)
