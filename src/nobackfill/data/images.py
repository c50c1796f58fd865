"""Images as a kind of sample: where they come from, what is known of them before, how they are served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nobackfill.config import ImageData
from nobackfill.config.data import ImageFiles, each_channel
from nobackfill.data.captions import with_captions
from nobackfill.data.cifar100 import load_cifar100
from nobackfill.data.digits import load_digits
from nobackfill.data.folder import load_folder
from nobackfill.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from nobackfill.data.samples import ImageSamples
from nobackfill.data.screening import leave_out_unreadable
from nobackfill.data.splits import Split, kept_or_held_out
from nobackfill.data.summary import DataSummary

if TYPE_CHECKING:
    import torch

    from nobackfill.data.loader import ImageLoader

DATASETS: dict[str, Callable[[Path, Split], ImageSamples]] = {
    "digits": load_digits,
    "cifar100": load_cifar100,
    "imagenet": load_folder,
    "folder": load_folder,
}

# Training images and classes where they are known without reading anything, for estimates.
SIZES: dict[str, tuple[int, int]] = {"digits": (1198, 10), "cifar100": (50_000, 100), "imagenet": (1_281_167, 1000)}


def load_images(data: ImageData, split: Split) -> ImageSamples:
    """See `nobackfill.data.load_split`.

    With `data.on_bad_image: skip`, files that do not decode are left out and listed in `skipped`.
    """
    root = data.root if isinstance(data, ImageFiles) else Path()
    images = DATASETS[data.name](root, "train" if data.holdout else split)
    images = kept_or_held_out(images, data.holdout, split)
    if isinstance(data, ImageFiles) and data.captions is not None:
        images = with_captions(images, data.captions, root)
    return leave_out_unreadable(images, data.workers) if data.on_bad_image == "skip" else images


def summarise_images(data: ImageData) -> DataSummary:
    """What is known of images without reading any."""
    count, classes = SIZES.get(data.name, (None, None))
    preprocessing = Preprocessing(
        image_size=data.image_size,
        resize=data.resize,
        mean=IMAGENET_MEAN if data.mean is None else each_channel(data.mean),
        std=IMAGENET_STD if data.std is None else each_channel(data.std),
        mirror=data.mirror,
    )
    return DataSummary(preprocessing, count, classes)


def image_loader(
    images: ImageSamples, preprocessing: Preprocessing, data: ImageData, device: torch.device, *, resident: bool
) -> ImageLoader:
    """See `nobackfill.data.open_loader`."""
    from nobackfill.data.loader import ImageLoader  # needs torch

    return ImageLoader(images.images, preprocessing, device, data.workers, resident=resident, augment=data.augment)
