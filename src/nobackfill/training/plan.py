"""What a run is going to be, worked out once from its config: read by set-up, resuming and check."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nobackfill.config import ImageData, RunConfig
from nobackfill.data import DataSummary, PairSamples, TextSamples, load_split, summarise, training_samples
from nobackfill.data.preprocessing import Preprocessing, TextPreprocessing, VectorPreprocessing
from nobackfill.errors import ConfigError, DataError
from nobackfill.methods import Method
from nobackfill.models import EmbeddingSpec, OlderSpace
from nobackfill.models.runfolder import load_spec
from nobackfill.models.spec import named_prefix
from nobackfill.models.text_backbones import open_source
from nobackfill.models.text_source import TextSource
from nobackfill.training.resolving import method_of, resolve, teacher_keys
from nobackfill.training.start import require_same_backbone


@dataclass(frozen=True)
class RunPlan:
    """A resolved config, and what it says about everything outside it.

    Attributes:
        config: fully resolved.
        method: with its weights.
        data: what is known of the data before they are read.
        preprocessing: how the new encoder sees samples.
        source: the text model that the new one starts from; None for samples that are no texts.
        teachers: the specs of the run folders by key, of `old`, `independent` and `init_from`.
        digests: what a resumed run must find as it was: the fingerprints of these runs, and the digests of data files;
            a path does not say which model was there.
        old_dim: size of the old embedding; 0 where there is none.
        prefixes: the older generations that the new one will be compatible with, newest first.
    """

    config: RunConfig
    method: Method
    data: DataSummary
    preprocessing: Preprocessing | TextPreprocessing | VectorPreprocessing
    source: TextSource | None
    teachers: Mapping[str, EmbeddingSpec]
    digests: Mapping[str, str]
    old_dim: int
    prefixes: tuple[OlderSpace, ...]

    @property
    def backbone(self) -> str:
        """The backbone's name, as the run folder keeps it."""
        return self.config.model.backbone if self.source is None else self.source.backbone

    @property
    def views(self) -> list[Preprocessing | TextPreprocessing | VectorPreprocessing]:
        """All ways in which the network sees samples while it trains."""
        small = self.small_view()
        return [self.preprocessing] if small is None else [self.preprocessing, small]

    @property
    def small_epochs(self) -> int:
        """How many epochs, from the first, train on small views."""
        data = self.config.data
        if not isinstance(data, ImageData) or data.augment.small_size is None:
            return 0
        return math.ceil(round(data.augment.small_until * self.config.epochs, 6))  # .07 · 100 is a bit above 7

    def small_view(self, epoch: int = 0) -> Preprocessing | None:
        """How images are seen in this epoch (from 0), where it trains on smaller ones (`data.augment.small_size`)."""
        config, whole = self.config, self.preprocessing
        if not isinstance(config.data, ImageData) or not isinstance(whole, Preprocessing):
            return None
        augment = config.data.augment
        if augment.small_size is None or epoch >= self.small_epochs:
            return None
        return whole.model_copy(update={"image_size": augment.small_size, "resize": None})

    def backbone_options(self, out_features: int) -> dict[str, int | float | str]:
        """What a backbone with so many outputs is built from, beside its name."""
        if self.source is not None:
            return self.source.options_for(out_features)
        return dict(self.preprocessing.backbone_options)


def make_plan(config: RunConfig) -> RunPlan:
    """Resolve a config and look at the run folders and files that it names.

    Raises:
        ConfigError: for keys that do not go together, or with the teachers' sizes.
        RunError, DataError: for a run folder or file that is missing or damaged.
    """
    method = method_of(config)
    config, data = resolve(config, method), summarise(config.data)
    needed = [key for key, needs in teacher_keys(method).items() if needs]
    folders = {key: path for key in [*needed, "init_from"] if (path := getattr(config, key)) is not None}
    teachers = {key: load_spec(path) for key, path in folders.items()}
    digests = {
        **{key: spec.fingerprint for key, spec in teachers.items()},
        **{key: _file_digest(path) for key, path in config.data.files.items()},
    }
    source = open_source(config.model.backbone, lambda: _training_texts(config))
    if source is not None:
        digests["backbone"] = source.fingerprint
    plan = _plan(config, method, data, teachers, digests, source)
    if config.init_from is not None:
        require_same_backbone(config.init_from, teachers["init_from"].architecture.backbone, plan.backbone)
    return plan


def plan_without_teachers(config: RunConfig) -> RunPlan:
    """The plan of a run whose teachers need not exist: `model.old_dim` stands for the old run. It has no digests.

    Raises:
        ConfigError: for keys that do not go together, and if nothing says how large the old embedding is.
    """
    method = method_of(config)
    config, data = resolve(config, method), summarise(config.data)
    teachers = {}
    if teacher_keys(method)["old"] and data.old_space is None and config.model.old_dim is None:
        if config.old is None or not config.old.is_dir():
            raise ConfigError(f"key 'model.old_dim': required, to check without the old run {config.old}")
        teachers = {"old": load_spec(config.old)}
    return _plan(
        config, method, data, teachers, {}, open_source(config.model.backbone, lambda: _training_texts(config))
    )


def _plan(
    config: RunConfig,
    method: Method,
    data: DataSummary,
    teachers: Mapping[str, EmbeddingSpec],
    digests: Mapping[str, str],
    source: TextSource | None,
) -> RunPlan:
    preprocessing = data.preprocessing if source is None else source.preprocessing
    if preprocessing is None:
        raise ConfigError(
            f"key 'model.backbone': {config.model.backbone!r} does not train on texts; expected sentence:FOLDER, "
            "static:FOLDER or static"
        )
    for key, wanted_key, wanted in (
        ("old", "model.old_dim", config.model.old_dim),
        ("independent", "model.embedding_dim", config.model.embedding_dim),
    ):
        if key in teachers and wanted is not None and teachers[key].dim != wanted:
            raise ConfigError(
                f"key {key!r}: {getattr(config, key)} has an embedding of {teachers[key].dim}, "
                f"but {wanted_key} says {wanted}"
            )
    for key, spec in teachers.items():
        if key in config.data.brings or config.data.modality == "image":
            continue
        if spec.modality != config.data.modality:
            raise ConfigError(
                f"key {key!r}: {getattr(config, key)} embeds {spec.modality}s, but data {config.data.name!r} are "
                f"{config.data.modality}s"
            )
    old = teachers.get("old")
    if old and data.old_input is not None and old.preprocessing.input_shape != (data.old_input,):
        raise ConfigError(
            f"key 'old': {config.old} takes {old.preprocessing.description}, but the data have {data.old_input} values "
            "for it; name a file of those as data.old_inputs"
        )
    old_dim = old.dim if old else config.model.old_dim or 0
    prefixes = old.as_prefixes() if old else ()
    if data.old_space is not None:
        name, old_dim, known = data.old_space
        if old and old.dim != old_dim:
            raise ConfigError(f"key 'old': {config.old} has an embedding of {old.dim}, data.old_vectors {old_dim}")
        if config.model.old_dim not in (None, old_dim):
            raise ConfigError(
                f"key 'model.old_dim': {config.model.old_dim}, but data.old_vectors have {old_dim} values"
            )
        named = named_prefix(name, old_dim)
        prefixes = prefixes or (named.model_copy(update={"fingerprint": known or named.fingerprint}),)
    method.check_input(config.model, preprocessing.input_shape)
    return RunPlan(config, method, data, preprocessing, source, teachers, digests, old_dim, prefixes)


def _training_texts(config: RunConfig) -> Iterable[str]:
    """Those that are trained on, both sides of pairs."""
    samples, _, _ = training_samples(load_split(config.data, "train"), config.data)
    if isinstance(samples, PairSamples):
        return [*samples.queries.texts, *samples.documents.texts]
    return samples.texts if isinstance(samples, TextSamples) else ()


def _file_digest(path: Path) -> str:
    """SHA-256 of a file's contents."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
