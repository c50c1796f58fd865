"""From a plan to everything the loop needs: data, teachers, network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from nobackfill.config import ImageData
from nobackfill.data import PairSamples, Samples, TextSamples, for_old_model, load_split, open_loader, training_samples
from nobackfill.errors import ConfigError, DataError, one_line
from nobackfill.models import Encoder, Network, build_backbone, load
from nobackfill.models.backbones import FitsStem
from nobackfill.models.stages import freeze
from nobackfill.training.fitted_start import fit_output
from nobackfill.training.listing import NAMES, listing_digest, present_listing
from nobackfill.training.mining import with_mined
from nobackfill.training.pair_step import PairTeachers, pair_teachers
from nobackfill.training.plan import RunPlan
from nobackfill.training.start import make_optimizer, start_weights
from nobackfill.training.teachers import Teachers, brought_vectors, check_view, class_means, teacher_vectors
from nobackfill.training.text_samples import tokenized

FIT_STEM = 2000  # training images at most, for a stem that is set to their principal directions


@dataclass(frozen=True)
class Setup:
    """What training works on.

    Attributes:
        network: on the CPU, its weights where they start, drawn from the global random state.
        start: what there is to say of a warm start or of frozen weights.
        batch_size: of all processes and micro-batches together: the config's, or what the data hold if that is less.
        pairs: what the teachers say of pairs, where the samples are pairs.
    """

    plan: RunPlan
    network: Network
    samples: Samples
    teachers: Teachers
    start: dict[str, object]
    batch_size: int
    pairs: PairTeachers | None = None

    @property
    def steps(self) -> int:
        """Of an epoch. A last, smaller batch is left out: batch norm would weigh its few samples like a whole one."""
        return len(self.samples) // self.batch_size

    def digests(self) -> dict[str, str | int]:
        """What tells another training set: number of samples, and a digest of their labels and of their names."""
        data = self.plan.config.data
        if isinstance(data, ImageData) and data.on_bad_image == "skip":
            names = present_listing(data)
        else:
            names = listing_digest(self.samples, self.teachers.labels.numpy())
        return {"samples": len(self.samples), NAMES: names}


def prepare(plan: RunPlan, accelerator: Accelerator) -> Setup:
    """Load data and teachers, embed the training samples with them, build the network.

    Whatever can be checked before the data are read is checked before.
    """
    config = plan.config
    encoders = {
        key: load(path, accelerator.device)
        for key, path in (("old", config.old), ("independent", config.independent))
        if path is not None
    }
    with torch.random.fork_rng(devices=[]):
        try_network(plan, build_network(plan, classes=2, weights=False))
    samples, classes, class_count = training_samples(load_split(config.data, "train"), config.data)
    if plan.method.classifies and config.data.labelled and class_count < 2:
        raise DataError(f"{samples.origin}: one class only, but method {config.method!r} tells classes apart")
    cut = 0
    if plan.source is not None:
        samples, cut = tokenized(samples, plan.source)
    labels = torch.from_numpy(classes)
    network = build_network(plan, class_count)
    start = {**start_weights(config, network), **({"texts_cut": cut} if cut else {})}
    if isinstance(network.backbone, FitsStem) and config.init_from is None:
        network.backbone.fit_stem(_some_views(plan, samples))
    pairs = None
    if isinstance(samples, PairSamples):
        if config.mine is not None:
            queries, documents = (
                teacher_vectors(encoders["old"], side, 0, accelerator) for side in (samples.queries, samples.documents)
            )
            samples, start["mined"] = with_mined(samples, queries, documents, config.mine, accelerator.device)
        pairs = pair_teachers(encoders, plan.method.needed, samples, accelerator)
        teachers = Teachers(labels)
    else:
        teachers = _teachers(plan, encoders, samples, labels, class_count, accelerator)
    if config.init == "fit":
        sides = [samples.queries, samples.documents] if isinstance(samples, PairSamples) else [samples]
        texts = [
            (side, teacher_vectors(encoders["old"], side, 0, accelerator))
            for side in sides
            if isinstance(side, TextSamples)
        ]
        start["fitted_output"] = fit_output(network, texts, accelerator.device)
    micro_batches = config.accumulate * accelerator.num_processes
    batch_size = min(config.batch_size, len(samples) // micro_batches * micro_batches)
    if batch_size < 2 * micro_batches:
        raise DataError(
            f"{samples.origin}: {len(samples)} training samples are too few for {micro_batches} micro-batches of two"
        )
    return Setup(plan, network, samples, teachers, start, batch_size, pairs)


def build_network(plan: RunPlan, classes: int, weights: bool = True) -> Network:
    """Backbone, head and the method's own modules, drawn from the global random state.

    Args:
        plan: of the run.
        classes: number of training classes.
        weights: whether to read the published weights, or those of a text model, that the config names.
    """
    model = plan.config.model
    head = plan.method.head(model, plan.old_dim, classes)
    options = plan.backbone_options(head.in_features)
    pretrained, folder = (model.pretrained, model.weights) if weights else (False, None)
    backbone = build_backbone(plan.backbone, head.in_features, pretrained=pretrained, weights=folder, options=options)
    if weights and plan.source is not None:
        plan.source.fill(backbone)
    network = Network(backbone, head, plan.backbone, options)
    network.own = plan.method.modules(model, plan.old_dim, classes)
    return network


def _some_views(plan: RunPlan, samples: Samples) -> torch.Tensor:
    """What the network sees of some 2,000 training samples, the same ones whatever the seed; float32 [n, …]."""
    order = np.sort(np.random.default_rng(0).permutation(len(samples))[:FIT_STEM])
    loader = open_loader(samples, plan.preprocessing, plan.config.data, torch.device("cpu"))
    return torch.cat([views for _, views in loader.batches(order, 256)])


def _teachers(
    plan: RunPlan,
    encoders: Mapping[str, Encoder],
    samples: Samples,
    labels: torch.Tensor,
    classes: int,
    accelerator: Accelerator,
) -> Teachers:
    """The vectors that the loss looks at; prototypes and statistics, which are always of the evaluation view."""
    config, wanted = plan.config, plan.method.needed
    brought = brought_vectors(samples, config.data.brings)
    live: dict[str, Encoder] = {}
    if config.teacher_view == "same":
        live = {name: encoder for name, encoder in encoders.items() if name in wanted and name not in brought}
    for name, encoder in live.items():
        check_view(name, encoder)
    computed = {
        name: teacher_vectors(
            encoder, for_old_model(samples) if name == "old" else samples, config.data.processes, accelerator
        )
        for name, encoder in encoders.items()
        if name not in brought and (name not in live or (name == "old" and wanted & {"prototypes", "statistics"}))
    }
    vectors = {**computed, **brought}
    prototypes = class_means(vectors["old"], labels, classes) if "prototypes" in wanted else None
    statistics = plan.method.statistics(vectors["old"], labels, classes) if "statistics" in wanted else {}
    looked_at: dict[str, torch.Tensor] = {
        name: rows for name, rows in vectors.items() if name in wanted and name not in live
    }
    return Teachers(labels, looked_at, prototypes, live, statistics)


def try_network(plan: RunPlan, network: Network) -> None:
    """Show the backbone two random samples of each view, and freeze and group the parameters as training will.

    Whatever does not fit shows here, before the data are read.

    Raises:
        ConfigError: naming the key.
    """
    config, name = plan.config, plan.config.model.backbone
    network.eval()
    for view in plan.views:
        try:
            with torch.inference_mode():
                shape = list(network.backbone(view.random_inputs(2)).shape)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            reason = one_line(error)
            raise ConfigError(f"key 'model.backbone': {name!r} does not take {view.description}: {reason}") from error
        if shape != [2, network.head.in_features]:
            raise ConfigError(f"key 'model.backbone': {name!r} gives {shape}, expected one vector per sample")
    if config.freeze is not None:
        freeze(network.backbone, config.freeze, name)
    make_optimizer(config, network, "fp32")
