"""From a config to everything the loop needs: checked settings, data, teachers, network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.functional import normalize

from nobackfill.config import AugmentConfig, Channels, RunConfig
from nobackfill.data import ImageSet, Preprocessing, VectorPreprocessing, choose_classes, load_split
from nobackfill.data.loader import Loader
from nobackfill.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from nobackfill.errors import ConfigError, DataError, one_line
from nobackfill.methods import Method, method_class
from nobackfill.methods.bt2_vectors import BT2Vectors
from nobackfill.methods.vector_map import VectorMap
from nobackfill.models import Encoder, Network, Prefix, build_backbone, load
from nobackfill.models.array_encoder import VECTORS
from nobackfill.models.quicknet import QuickNet
from nobackfill.models.runfolder import load_spec
from nobackfill.models.spec import named_prefix
from nobackfill.training.start import start_weights
from nobackfill.training.teachers import Teachers, check_view, class_means, teacher_vectors


def resolve(config: RunConfig) -> RunConfig:
    """The config with the method's defaults filled in; refuses keys the method has no use for.

    Raises:
        ConfigError: unknown method, superfluous or missing key, warm-up as long as the run.
    """
    method = method_class(config.method)
    needs = teacher_keys(config)
    for key in ("extra_dim", "scale", "rectify"):
        if getattr(config.model, key) is not None and key not in method.model_defaults:
            raise ConfigError(f"key 'model.{key}': method {config.method!r} has no use for it; leave it out")
    for key, needed in needs.items():
        given = getattr(config, key) is not None
        if key == "old" and needed and config.data.name == "vectors":
            continue  # its vectors come with the data; the run folder only says which model it was
        if needed and not given:
            raise ConfigError(f"missing key {key!r}: method {config.method!r} needs the run folder of that model")
        if given and not needed:
            why = f" with loss.{key}: 0" if key in method.teachers else ""
            raise ConfigError(f"key {key!r}: method {config.method!r} has no use for it{why}; leave it out")
    _check_vectors(config, method(config.loss))
    if config.model.old_dim is not None and not needs["old"]:
        raise ConfigError(f"key 'model.old_dim': method {config.method!r} has no use for it; leave it out")
    if config.schedule.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"key 'schedule.warmup_epochs': {config.schedule.warmup_epochs} leaves nothing of {config.epochs} epochs"
        )
    _check_views(config)
    if config.average and config.freeze:
        raise ConfigError("keys 'average', 'freeze': frozen weights have no average; leave one of them out")
    if config.optimizer.nesterov and config.optimizer.name not in ("sgd", "muon"):
        raise ConfigError(f"key 'optimizer.nesterov': {config.optimizer.name!r} has no use for it; leave it out")
    if config.teacher_view == "same" and not method.teachers & {"old", "independent"}:
        raise ConfigError(f"key 'teacher_view': method {config.method!r} looks at no teacher's vectors; leave it out")
    model = {key: value for key, value in config.model.model_dump().items() if value is not None}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={**method.model_defaults, **model}),
            "loss": {**method.loss_defaults, **config.loss},
        }
    )


def _check_views(config: RunConfig) -> None:
    """Settings of the views that do not fit the size of the images."""
    augment, size = config.data.augment, config.data.image_size
    if augment.crop == "padded" and augment.padding_mode == "reflect" and augment.padding >= size:
        raise ConfigError(
            f"key 'data.augment.padding': {augment.padding} pixels cannot be reflected from images of {size}; "
            f"expected at most {size - 1}"
        )
    if augment.cutout > size:
        raise ConfigError(f"key 'data.augment.cutout': {augment.cutout} exceeds the image size of {size}")
    if config.data.std is not None and 0 in _each_channel(config.data.std):
        raise ConfigError("key 'data.std': expected values above 0, found 0")


def teacher_keys(config: RunConfig) -> dict[str, bool]:
    """Which of the config's teacher keys its method needs; the prototypes come from the old model.

    An independent model whose weight is 0 need not exist; the old one is what the new one answers to in any case.
    """
    method = method_class(config.method)(config.loss)
    return {"old": bool(method.teachers & {"old", "prototypes"}), "independent": "independent" in method.needed}


def _check_vectors(config: RunConfig, method: Method) -> None:
    """What goes with vectors goes with nothing else, and the other way round."""
    vectors = config.data.name == "vectors"
    if vectors != isinstance(method, VectorMap):
        wanted = "map or bt2_vectors" if vectors else "a method of images"
        raise ConfigError(f"key 'method': data.name is {config.data.name!r}, so expected {wanted}; see data.name")
    if vectors != config.model.backbone.startswith(VECTORS):
        raise ConfigError(f"key 'model.backbone': {config.model.backbone!r} does not go with data {config.data.name!r}")
    if vectors and (config.data.augment != AugmentConfig() or config.teacher_view == "same"):
        raise ConfigError("keys 'data.augment', 'teacher_view': vectors have one view only; leave them out")
    for key in ("mirror", "mean", "std"):
        if vectors and getattr(config.data, key):
            raise ConfigError(f"key 'data.{key}': vectors are no images; leave it out")
    if vectors and "prototypes" in method.needed and config.data.labels is None:
        raise ConfigError("key 'loss.prototypes': prototypes need data.labels; set it to 0")


TEACHERS = "teachers.json"  # in a run folder: the fingerprints of the models it was trained against or began from


def teacher_fingerprints(config: RunConfig) -> dict[str, str]:
    """The teachers' fingerprints as their run folders have them now: a path does not say which model was there.

    Of vectors that come as files, their digests.
    """
    keys = [key for key, needed in teacher_keys(config).items() if needed]
    places = {key: place for key in [*keys, "init_from"] if (place := getattr(config, key)) is not None}
    files = {
        "vectors": config.data.vectors,
        "old_vectors": config.data.old_vectors,
        "labels": config.data.labels,
        "rows": config.data.rows,
    }
    contents = {key: _digest(path) for key, path in files.items() if path is not None}
    return {**{key: load_spec(place).fingerprint for key, place in places.items()}, **contents}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


@dataclass(frozen=True)
class Setup:
    """What training works on.

    Attributes:
        prefixes: the older generations it will answer.
        network: on the CPU, its weights where they start, drawn from the global random state.
        start: what there is to say of a warm start or of frozen weights.
        batch_size: of all processes and parts together: the config's, or what the data hold if that is less.
    """

    config: RunConfig
    method: Method
    network: Network
    preprocessing: Preprocessing | VectorPreprocessing
    prefixes: tuple[Prefix, ...]
    images: ImageSet
    teachers: Teachers
    start: dict[str, Any]
    batch_size: int

    @property
    def steps(self) -> int:
        """Of an epoch. A last, smaller batch is left out: batch norm would weigh its few images like a whole one."""
        return len(self.images) // self.batch_size

    def marks(self) -> dict[str, Any]:
        """What tells another training set: number of images, and a digest of their labels and of files' names."""
        digest = hashlib.sha256(self.teachers.labels.numpy().tobytes())
        if not isinstance(self.images.images, np.ndarray):
            digest.update("\n".join(map(str, self.images.images)).encode(errors="surrogateescape"))
        return {"images": len(self.images), "labels and names": digest.hexdigest()[:16]}


def prepare(config: RunConfig, accelerator: Accelerator) -> Setup:
    """Load data and teachers, embed the training images with them, build the network.

    Whatever can be checked before the data are read is checked before.
    """
    method, device = method_class(config.method)(config.loss), accelerator.device
    old = load(config.old, device) if config.old else None
    independent = load(config.independent, device) if config.independent else None
    _check_dims(config, old, independent)
    vectors = config.data.name == "vectors"
    train_set = load_split(config.data, "train") if vectors else None  # their sizes are the network's
    given = None if train_set is None else train_set.given
    old_dim = given.shape[1] if given is not None else old.spec.dim if old else 0
    if old and old.spec.dim != old_dim:
        raise ConfigError(f"key 'old': {config.old} has an embedding of {old.spec.dim}, data.old_vectors {old_dim}")
    preprocessing = _preprocessing(config, train_set)
    options = {"in_features": preprocessing.input_dim} if isinstance(preprocessing, VectorPreprocessing) else {}
    if isinstance(method, BT2Vectors) and config.model.embedding_dim not in options.values():
        raise ConfigError(
            f"key 'model.embedding_dim': {config.model.embedding_dim}, but the vectors that are kept have "
            f"{options['in_features']} values"
        )
    _try_network(config, method, old_dim, preprocessing, options)
    train_set = train_set or load_split(config.data, "train")
    classes = choose_classes(config.data, len(train_set.class_names))
    images, labels = _training_images(config, train_set, classes)
    head = method.head(config.model, old_dim, len(classes))
    backbone = build_backbone(
        config.model.backbone,
        head.in_features,
        pretrained=config.model.pretrained,
        weights=config.model.weights,
        options=options,
    )
    network = Network(backbone, head, config.model.backbone, options)
    start = start_weights(config, network)
    if isinstance(backbone, QuickNet) and config.init_from is None:
        backbone.fit_stem(_some_images(images, preprocessing, config.data.workers))
    teachers = _teachers(
        config, method, {"old": old, "independent": independent}, images, labels, len(classes), accelerator
    )
    parts = config.accumulate * accelerator.num_processes
    batch_size = min(config.batch_size, len(images) // parts * parts)
    if batch_size < 2 * parts:
        raise DataError(f"{images.origin}: {len(images)} images to train on are too few for {parts} parts of a batch")
    prefixes = old.spec.as_prefixes() if old else ()
    if vectors and not old:
        prefixes = (named_prefix(config.data.old_name, old_dim),)
    return Setup(config, method, network, preprocessing, prefixes, images, teachers, start, batch_size)


def _preprocessing(config: RunConfig, vectors: ImageSet | None) -> Preprocessing | VectorPreprocessing:
    if vectors is None:
        data = config.data
        return Preprocessing(
            image_size=data.image_size,
            resize=data.resize,
            mean=IMAGENET_MEAN if data.mean is None else _each_channel(data.mean),
            std=IMAGENET_STD if data.std is None else _each_channel(data.std),
            mirror=data.mirror,
        )
    assert isinstance(vectors.images, np.ndarray)  # noqa: S101 (`load_vectors` reads arrays)
    return VectorPreprocessing(input_dim=vectors.images.shape[1])


def _each_channel(value: Channels) -> tuple[float, float, float]:
    return value if isinstance(value, tuple) else (value, value, value)


def _some_images(images: ImageSet, preprocessing: Preprocessing | VectorPreprocessing, workers: int) -> torch.Tensor:
    """What the network sees of some 2,000 training images, the same ones whatever the seed; float32 [n, 3, s, s]."""
    order = np.sort(np.random.default_rng(0).permutation(len(images))[:2000])
    batches = Loader(images.images, preprocessing, torch.device("cpu"), workers).batches(order, 256)
    return torch.cat([views for _, views in batches])


def _teachers(
    config: RunConfig,
    method: Method,
    encoders: dict[str, Encoder | None],
    images: ImageSet,
    labels: torch.Tensor,
    classes: int,
    accelerator: Accelerator,
) -> Teachers:
    """The vectors that the method's loss looks at, and the prototypes, which are always of the evaluation view."""
    if images.given is not None:
        old = normalize(torch.from_numpy(np.ascontiguousarray(images.given)).float())
        prototypes = class_means(old, labels, classes) if "prototypes" in method.needed else None
        return Teachers(labels, {"old": old} if "old" in method.needed else {}, prototypes)
    present = {name: encoder for name, encoder in encoders.items() if encoder is not None}
    wanted: set[str] = set(method.needed)
    looked_at = {name: encoder for name, encoder in present.items() if name in wanted}
    live = looked_at if config.teacher_view == "same" else {}
    for name, encoder in live.items():
        check_view(name, encoder)
    kept = {
        name: teacher_vectors(encoder, images, config.data.workers, accelerator)
        for name, encoder in present.items()
        if name not in live or (name == "old" and "prototypes" in wanted)
    }
    prototypes = class_means(kept["old"], labels, classes) if "prototypes" in wanted else None
    return Teachers(labels, {name: kept[name] for name in looked_at if name not in live}, prototypes, live)


def _training_images(config: RunConfig, train_set: ImageSet, classes: np.ndarray) -> tuple[ImageSet, torch.Tensor]:
    chosen = np.arange(len(train_set))
    if config.data.train_limit is not None:
        # The same images for every run of an experiment, old or new, whatever its seed.
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[: config.data.train_limit])
    chosen = chosen[np.isin(train_set.labels[chosen], classes)]
    images = train_set.take(chosen)
    return images, torch.from_numpy(np.searchsorted(classes, images.labels))


def _try_network(
    config: RunConfig,
    method: Method,
    old_dim: int,
    preprocessing: Preprocessing | VectorPreprocessing,
    options: dict[str, int],
) -> None:
    """Build the network and show it one empty batch, before the data are read: whatever does not fit shows here."""
    size = config.data.image_size
    example = torch.zeros(2, 3, size, size)
    if isinstance(preprocessing, VectorPreprocessing):
        example = torch.zeros(2, preprocessing.input_dim)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        head = method.head(config.model, old_dim, classes=2)
        backbone = build_backbone(config.model.backbone, head.in_features, options=options).eval()
        try:
            shape = list(backbone(example).shape)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            reason = one_line(error)
            raise ConfigError(
                f"key 'model.backbone': {config.model.backbone!r} does not take images of {size}×{size}: {reason}"
            ) from error
    if shape != [2, head.in_features]:
        raise ConfigError(f"key 'model.backbone': {config.model.backbone!r} gives {shape}, not one vector an image")


def _check_dims(config: RunConfig, old: Encoder | None, independent: Encoder | None) -> None:
    for key, encoder, wanted_key, wanted in (
        ("old", old, "model.old_dim", config.model.old_dim),
        ("independent", independent, "model.embedding_dim", config.model.embedding_dim),
    ):
        if encoder is not None and wanted is not None and encoder.spec.dim != wanted:
            raise ConfigError(
                f"key {key!r}: {getattr(config, key)} has an embedding of {encoder.spec.dim}, "
                f"but {wanted_key} says {wanted}"
            )
