"""The section `data` of a config: one class for each kind of sample, told apart by `name`.

To add a kind of sample: a subclass of `DataSection` here, and its name in `DataConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import Field

from nobackfill.config.section import MOST, Positive, Section

Kind = Literal["image", "vector", "text", "pair"]
"""Of the samples a run trains on."""
Modality = Literal["image", "text", "vector"]
"""What an encoder takes."""
ClassNumber = Annotated[int, Field(ge=0, lt=MOST)]
Fraction = Annotated[float, Field(ge=0, le=1)]
LEAST_STD = 0.001
"""A quarter of a pixel's step; less would only be a mistake, and overflow."""
Channels = Fraction | tuple[Fraction, Fraction, Fraction]


class DataSection(Section):
    """What every kind of training data has. `classes` restricts *training* only: evaluation always sees every class.

    Attributes:
        kind: of the samples.
        modality: of the encoder that trains on them.
        random_views: whether training sees them varied at random.
    """

    kind: ClassVar[Kind]
    modality: ClassVar[Modality]
    random_views: ClassVar[bool] = False

    name: str
    classes: Positive | Literal["first-half"] | list[ClassNumber] | None = None
    """Train on the first n classes, the first half, these class numbers, or (null) all classes."""
    train_limit: Positive | None = None
    """Train on at most this many samples (a fixed random choice)."""
    holdout: Positive | None = None
    """To tune without the test set: hold out this many training samples (a fixed random choice) and use them instead of
    the test split."""

    @property
    def labelled(self) -> bool:
        """Whether the classes of the samples are known."""
        return True

    @property
    def brings(self) -> frozenset[str]:
        """The teachers whose vectors come with the data, so that no run folder has to compute them."""
        return frozenset()

    @property
    def processes(self) -> int:
        """Processes that read samples; 0: none but this one."""
        return 0

    @property
    def files(self) -> Mapping[str, Path]:
        """Files by key whose contents a run depends on as it does on its teachers' weights."""
        return {}


class AugmentConfig(Section):
    """The random view of a training image; every draw depends on (seed, epoch, index) alone."""

    flip: bool | Literal["alternating"] = False
    """Mirror left-right with probability one half; `alternating`: in every other epoch, at random in the first."""
    crop: Literal["none", "padded", "resized"] = "none"
    """`padded`: a random window of the image padded by `padding`; `resized`: 8–100 % of the area, scaled up."""
    padding: Annotated[int, Field(gt=0, le=1024)] = 4
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    """Fill around a `padded` image: black, or its own reflection."""
    cutout: Annotated[int, Field(ge=0, le=4096)] = 0
    """Side of a randomly placed square set to the mean colour; 0: none."""
    small_size: Annotated[int, Field(gt=0, le=4096)] | None = None
    """Side in pixels to which views are shrunk in the first `small_until` of the epochs, which makes these cheaper."""
    small_until: Fraction = 0.6
    """`small_size`: the fraction of the epochs, rounded up to whole ones, that train on small views."""


class ImageData(DataSection):
    """Labelled images, and how the network sees them."""

    kind: ClassVar[Kind] = "image"
    modality: ClassVar[Modality] = "image"
    random_views: ClassVar[bool] = True

    image_size: Annotated[int, Field(gt=0, le=4096)] = 32
    """Side of the square network input, in pixels."""
    resize: Annotated[int, Field(gt=0, le=8192)] | None = None
    """Resize the shorter side to this, then crop the centre square; null: stretch the whole image to the square."""
    augment: AugmentConfig = AugmentConfig()
    mirror: bool = False
    """Embed each image and its mirror image and normalise the sum; part of the encoder, and doubles the cost of
    encoding."""
    mean: Channels | None = None
    """Pixel mean (0–1), one per colour or one for all; null: ImageNet's."""
    std: Channels | None = None
    """Pixel standard deviation, likewise."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """What to do with image files that do not decode; `skip` reads all files first and lists the skipped ones."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that decode image files; data sets in memory need none."""

    @property
    def processes(self) -> int:
        """Processes that decode image files."""
        return self.workers

    @pydantic.model_validator(mode="after")
    def _check(self) -> ImageData:
        augment, size = self.augment, self.image_size
        if self.resize is not None and self.resize < size:
            raise ValueError(f"key 'data.resize': expected at least the image size of {size}, found {self.resize}")
        if augment.crop == "padded" and augment.padding_mode == "reflect" and augment.padding >= size:
            raise ValueError(
                f"key 'data.augment.padding': {augment.padding} pixels of reflection do not fit images of {size}; "
                f"expected at most {size - 1}"
            )
        for key, needed, used in (
            ("padding", "crop: padded", augment.crop == "padded"),
            ("padding_mode", "crop: padded", augment.crop == "padded"),
            ("small_until", "small_size", augment.small_size is not None),
        ):
            if not used and getattr(augment, key) != AugmentConfig.model_fields[key].default:
                raise ValueError(f"key 'data.augment.{key}': used only with {needed}; leave it out")
        if augment.cutout > size:
            raise ValueError(f"key 'data.augment.cutout': {augment.cutout} exceeds the image size of {size}")
        if augment.small_size is not None and augment.small_size >= size:
            raise ValueError(
                f"key 'data.augment.small_size': {augment.small_size} is not below the image size of {size}"
            )
        if self.std is not None and min(each_channel(self.std)) < LEAST_STD:
            raise ValueError(f"key 'data.std': expected at least {LEAST_STD}, found {min(each_channel(self.std))}")
        return self


class DigitsData(ImageData):
    """The handwritten digits that come with scikit-learn."""

    name: Literal["digits"] = "digits"


class ImageFiles(ImageData):
    """Images that lie in a folder or an archive."""

    root: Path
    captions: Path | None = None
    """JSON {image file: caption}, for a teacher that reads text."""


class Cifar100Data(ImageFiles):
    """CIFAR-100, in any of its layouts."""

    name: Literal["cifar100"] = "cifar100"


class FolderData(ImageFiles):
    """One folder per class, in `training`/`train` and `validation`/`val`/`test`."""

    name: Literal["folder", "imagenet"] = "folder"


class VectorData(DataSection):
    """What frozen models made of some items, as files."""

    kind: ClassVar[Kind] = "vector"
    modality: ClassVar[Modality] = "vector"

    name: Literal["vectors"] = "vectors"
    vectors: Path
    """The new model's embeddings of the items, a .npy array of floats [n, d]."""
    old_vectors: Path | None = None
    """The old model's embeddings of the same items, row by row, [n, d_o]."""
    old_inputs: Path | None = None
    """Instead of `old_vectors`, where `old` is a run on vectors itself: what that run takes of the same items."""
    labels: Path | None = None
    """Class labels of the items, if known, integers [n]."""
    rows: Path | None = None
    """A .npy array of row numbers to train on; null: all that are not in `test_rows`."""
    test_rows: Path | None = None
    """A .npy array of the row numbers of the test split."""
    old_name: Annotated[str, Field(pattern=r"^[^\s:]{1,200}$")] = "old"
    """The old model's name, by which galleries identify its vectors."""
    old_fingerprint: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    """The old model's fingerprint, where it is known; null: its name stands for it."""

    @property
    def labelled(self) -> bool:
        """Whether the classes of the items are known."""
        return self.labels is not None

    @property
    def brings(self) -> frozenset[str]:
        """The old model's vectors, where they are given."""
        return frozenset() if self.old_vectors is None else frozenset({"old"})

    @property
    def files(self) -> Mapping[str, Path]:
        """All arrays."""
        keys = ("vectors", "old_vectors", "old_inputs", "labels", "rows", "test_rows")
        return {key: path for key in keys if (path := getattr(self, key)) is not None}

    @pydantic.model_validator(mode="after")
    def _check_old(self) -> VectorData:
        if self.old_vectors is not None and self.old_inputs is not None:
            raise ValueError("keys 'data.old_vectors', 'data.old_inputs': the first is what the old model makes of the "
                             "second; leave one of the two out")  # fmt: skip
        return self


Column = Annotated[str, Field(min_length=1, max_length=200)]


class TextFiles(DataSection):
    """Rows of text in files: CSV or TSV with a header, JSON lines, or parquet."""

    modality: ClassVar[Modality] = "text"

    train: Path
    test: Path | None = None
    """File of the test split. Rows of `train` that share a text with it are left out of training, and counted."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Without `test`: use this fraction of the rows as the test split; no text stands on both sides."""

    @property
    def files(self) -> Mapping[str, Path]:
        """The files of both splits."""
        return {"train": self.train, **({} if self.test is None else {"test": self.test})}

    @pydantic.model_validator(mode="after")
    def _check_split(self) -> TextFiles:
        if self.test_fraction is not None and (self.test is not None or self.holdout is not None):
            other = "test" if self.test is not None else "holdout"
            raise ValueError(
                f"keys 'data.test_fraction', 'data.{other}': both make a test split; leave one of them out"
            )
        return self


class TextData(TextFiles):
    """Texts with a class label each."""

    kind: ClassVar[Kind] = "text"

    name: Literal["texts"] = "texts"
    text: Column = "text"
    """Column of the texts."""
    label: Column | None = "label"
    """Column of the class labels, strings or integers; null: the texts have none."""

    @property
    def labelled(self) -> bool:
        """Whether there is a column of labels."""
        return self.label is not None


class PairData(TextFiles):
    """Queries, each with a document that answers it."""

    kind: ClassVar[Kind] = "pair"

    name: Literal["pairs"] = "pairs"
    query: Column = "query"
    """Column of the queries."""
    positive: Column = "positive"
    """Column of the documents that answer them."""
    negatives: list[Column] = Field(default_factory=list)
    """Columns of hard negatives, a text or (JSON lines, parquet) a list of texts in each cell; may be empty."""
    id: Column | None = None
    """Column of the positives' ids: rows with the same id have the same document. null: its text is its id."""

    @property
    def labelled(self) -> bool:
        """Pairs have no classes."""
        return False

    @pydantic.model_validator(mode="after")
    def _check_classes(self) -> PairData:
        if self.classes is not None:
            raise ValueError("key 'data.classes': pairs have no classes; leave it out")
        return self


DataConfig = Annotated[
    DigitsData | Cifar100Data | FolderData | VectorData | TextData | PairData, Field(discriminator="name")
]


def each_channel(value: Channels) -> tuple[float, float, float]:
    """One value for all colours, or one for each, as three."""
    return value if isinstance(value, tuple) else (value, value, value)
