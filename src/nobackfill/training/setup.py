"""From a config to everything the loop needs: checked settings, data, teachers, network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from nobackfill.config import RunConfig
from nobackfill.data import ImageSet, Preprocessing, choose_classes, load_split
from nobackfill.errors import ConfigError, DataError
from nobackfill.methods import Method, method_class
from nobackfill.models import EmbeddingSpec, Encoder, Network, build_backbone, load
from nobackfill.models.runfolder import load_spec
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
        if needed and not given:
            raise ConfigError(f"missing key {key!r}: method {config.method!r} needs the run folder of that model")
        if given and not needed:
            why = f" with loss.{key}: 0" if key in method.teachers else ""
            raise ConfigError(f"key {key!r}: method {config.method!r} has no use for it{why}; leave it out")
    if config.model.old_dim is not None and not needs["old"]:
        raise ConfigError(f"key 'model.old_dim': method {config.method!r} has no use for it; leave it out")
    if config.schedule.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"key 'schedule.warmup_epochs': {config.schedule.warmup_epochs} leaves nothing of {config.epochs} epochs"
        )
    if config.teacher_view == "same" and not method.teachers & {"old", "independent"}:
        raise ConfigError(f"key 'teacher_view': method {config.method!r} looks at no teacher's vectors; leave it out")
    model = {key: value for key, value in config.model.model_dump().items() if value is not None}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={**method.model_defaults, **model}),
            "loss": {**method.loss_defaults, **config.loss},
        }
    )


def teacher_keys(config: RunConfig) -> dict[str, bool]:
    """Which of the config's teacher keys its method needs; the prototypes come from the old model.

    An independent model whose weight is 0 need not exist; the old one is what the new one answers to in any case.
    """
    method = method_class(config.method)(config.loss)
    return {"old": bool(method.teachers & {"old", "prototypes"}), "independent": "independent" in method.needed}


TEACHERS = "teachers.json"  # in a run folder: the fingerprints of the models it was trained against or began from


def teacher_fingerprints(config: RunConfig) -> dict[str, str]:
    """The teachers' fingerprints as their run folders have them now: a path does not say which model was there."""
    places = {key: getattr(config, key) for key, needed in teacher_keys(config).items() if needed}
    if config.init_from is not None:
        places["init_from"] = config.init_from
    return {key: load_spec(place).fingerprint for key, place in places.items()}


@dataclass(frozen=True)
class Setup:
    """What training works on.

    Attributes:
        network: on the CPU, its weights where they start, drawn from the global random state.
        start: what there is to say of a warm start or of frozen weights.
        batch_size: of all processes and parts together: the config's, or what the data hold if that is less.
    """

    config: RunConfig
    method: Method
    network: Network
    preprocessing: Preprocessing
    old: EmbeddingSpec | None
    images: ImageSet
    teachers: Teachers
    start: dict[str, Any]
    batch_size: int

    @property
    def steps(self) -> int:
        """Of an epoch. A last, smaller batch is left out: batch norm would weigh its few images like a whole one."""
        return len(self.images) // self.batch_size


def prepare(config: RunConfig, accelerator: Accelerator) -> Setup:
    """Load data and teachers, embed the training images with them, build the network.

    Whatever can be checked before the data are read is checked before.
    """
    method, device = method_class(config.method)(config.loss), accelerator.device
    old = load(config.old, device) if config.old else None
    independent = load(config.independent, device) if config.independent else None
    _check_dims(config, old, independent)
    _try_network(config, method, old.spec.dim if old else 0)
    train_set = load_split(config.data, "train")
    classes = choose_classes(config.data, len(train_set.class_names))
    images, labels = _training_images(config, train_set, classes)
    head = method.head(config.model, old.spec.dim if old else 0, len(classes))
    backbone = build_backbone(
        config.model.backbone, head.in_features, pretrained=config.model.pretrained, weights=config.model.weights
    )
    network = Network(backbone, head, config.model.backbone)
    start = start_weights(config, network)
    teachers = _teachers(
        config, method, {"old": old, "independent": independent}, images, labels, len(classes), accelerator
    )
    preprocessing = Preprocessing(image_size=config.data.image_size, resize=config.data.resize)
    parts = config.accumulate * accelerator.num_processes
    batch_size = min(config.batch_size, len(images) // parts * parts)
    if batch_size < 2 * parts:
        raise DataError(f"{images.origin}: {len(images)} images to train on are too few for {parts} parts of a batch")
    spec = old.spec if old else None
    return Setup(config, method, network, preprocessing, spec, images, teachers, start, batch_size)


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


def _try_network(config: RunConfig, method: Method, old_dim: int) -> None:
    """Build the network and show it one empty batch, before the data are read: whatever does not fit shows here."""
    size = config.data.image_size
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        head = method.head(config.model, old_dim, classes=2)
        backbone = build_backbone(config.model.backbone, head.in_features).eval()
        try:
            shape = list(backbone(torch.zeros(2, 3, size, size)).shape)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
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
