"""What a training run is made of, as one checked YAML file.

`load_config` reads a file and dotted overrides; an unknown key, a wrong type or a value out of range ends in a
`ConfigError` that names the key. Relative paths are relative to the working directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from nobackfill.errors import ConfigError, nearest, one_line

Positive = Annotated[int, Field(gt=0)]
ClassCount = Annotated[int, Field(gt=0, le=10_000_000)]
ClassNumber = Annotated[int, Field(ge=0, lt=10_000_000)]


class Section(BaseModel):
    """Base of all sections: typos are refused, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AugmentConfig(Section):
    """The random view of a training image; every draw depends on (seed, epoch, index) alone."""

    flip: bool | Literal["alternating"] = False
    """Mirror left-right with probability one half; `alternating`: the side seen first is random, the other one comes in
    the next epoch."""
    crop: Literal["none", "padded", "resized"] = "none"
    """`padded`: a window of the image padded by `padding`; `resized`: 8–100 % of the area, stretched to full size."""
    padding: Annotated[int, Field(gt=0, le=1024)] = 4
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    """What surrounds a `padded` image: black, or its own mirror image."""
    cutout: Annotated[int, Field(ge=0, le=4096)] = 0
    """Side of a square at a random place whose pixels are set to the mean colour; 0: none."""


Share = Annotated[float, Field(ge=0, le=1)]
Channels = Share | tuple[Share, Share, Share]


class DataConfig(Section):
    """A labelled set of images. `classes` restricts *training* only: evaluation always sees every class."""

    name: Literal["digits", "cifar100", "imagenet", "folder", "vectors"]
    root: Path | None = None
    vectors: Path | None = None
    """`vectors`: what the new model made of the items, a .npy array of floats [n, d]."""
    old_vectors: Path | None = None
    """`vectors`: what the old model made of the same items, row by row, [n, d_o]."""
    labels: Path | None = None
    """`vectors`: class numbers of the items, if known, integers [n]."""
    rows: Path | None = None
    """`vectors`: a .npy array of the row numbers to train on; null: all."""
    old_name: Annotated[str, Field(pattern=r"^[^\s:]{1,200}$")] = "old"
    """`vectors`: the old model's name; galleries know its vectors by it."""
    captions: Path | None = None
    """JSON {image file: caption}, for a teacher that reads text."""
    classes: ClassCount | Literal["first-half"] | list[ClassNumber] | None = None
    """Train on the first n classes, on the first half, on these class numbers, or (null) on all."""
    train_limit: Positive | None = None
    """Use at most this many training images (a fixed random choice)."""
    holdout: Positive | None = None
    """Choose settings without the test set: this many training images (a fixed random choice) are kept out of training
    and take the place of the test split."""
    image_size: Annotated[int, Field(gt=0, le=4096)] = 32
    """Side of the square the network sees, in pixels."""
    resize: Annotated[int, Field(gt=0, le=8192)] | None = None
    """Resize the shorter side to this and cut the centre square; null: stretch the whole image to the square."""
    augment: AugmentConfig = AugmentConfig()
    mirror: bool = False
    """A vector is the sum of those of the image and of its mirror image, brought back to the norm; part of the
    encoder, and twice the work of encoding."""
    mean: Channels | None = None
    """Mean of the pixels, of each colour or of all (0–1); null: ImageNet's."""
    std: Channels | None = None
    """Standard deviation, likewise."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """What to do with image files that do not decode; `skip` reads all files once before, and lists those left out."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that decode image files; sets that fit in memory need none."""


class ClassifierOptions(TypedDict):
    """Keyword arguments of heads with a classifier."""

    classifier_bias: bool
    classifier_scale: float | None


class ModelConfig(Section):
    """Backbone and embedding. What a method does not use must be left out."""

    backbone: str = "smallnet32"
    """`smallnetW` (a small residual net of width W), `quicknetW` (plain convolutions, for images of about 32 pixels),
    any timm model name, or `small-stem/` and a timm ResNet's name."""
    embedding_dim: Annotated[int, Field(gt=0, le=65536)] = 128
    """Size d of the self-trained embedding."""
    old_dim: Positive | None = None
    """Size of the old embedding; checked against the old run when given."""
    extra_dim: Annotated[int, Field(ge=0, le=65536)] | None = None
    """BT²: the k dimensions added beside the embedding."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """BT²: the constant C."""
    rectify: bool | None = None
    """BT²: relu before the layer of the extra dimensions; the paper's ViT does without."""
    classifier_bias: bool = False
    """Whether the classifier W has a bias; the paper's ViT has one."""
    classifier_scale: Annotated[float, Field(gt=0)] | None = None
    """Cosine classifier: the rows of W count at unit norm and the logits are this many times the cosines."""

    @property
    def classifier(self) -> ClassifierOptions:
        """The options of the classifier, as heads take them."""
        return {"classifier_bias": self.classifier_bias, "classifier_scale": self.classifier_scale}

    pretrained: bool = False
    """Start the timm backbone from its published weights (needs them on this machine)."""
    weights: Path | None = None
    """`reference/vit_b16`: folder of a pre-trained ViT to start from (config.json and model.safetensors)."""


class OptimizerConfig(Section):
    """Adam, AdamW, SGD with momentum 0.9, or Muon for the backbone's matrices and AdamW for the rest."""

    name: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    nesterov: bool = False
    """Nesterov's momentum (`sgd` and `muon`)."""
    decay_norms_and_biases: bool = True
    """Whether weight decay acts on biases and normalisation layers too."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each stage of the backbone learns at this share of the rate of the stage above it; 1: all alike."""


PER_EPOCH = ("cosine", "constant", "multistep")


class ScheduleConfig(Section):
    """The learning rate, by epoch (`cosine`, `constant`, `multistep`) or by step (`linear`, `one_cycle`).

    By epoch: linear warm-up lr·(epoch+1)/`warmup_epochs`, then cosine to zero, constant, or times `gamma` at each
    milestone. By step: up to lr over the first `rise` of all steps, then down to zero, by straight lines or by cosines.
    """

    name: Literal["cosine", "constant", "multistep", "linear", "one_cycle"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    rise: Annotated[float, Field(ge=0, lt=1)] | None = None
    """`linear`, `one_cycle`: share of the steps over which the rate rises; null: one fifth."""
    milestones: list[Positive] = []
    """`multistep`: numbers of finished epochs after which the rate falls."""
    gamma: Annotated[float, Field(gt=0, lt=1)] | None = None
    """`multistep`: what the rate is multiplied by; null: 0.1."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> ScheduleConfig:
        if self.warmup_epochs and self.name not in PER_EPOCH:
            raise ValueError(f"key 'schedule.warmup_epochs': {self.name!r} goes by steps; set schedule.rise instead")
        if self.rise is not None and self.name in PER_EPOCH:
            raise ValueError(f"key 'schedule.rise': {self.name!r} goes by epochs; set schedule.warmup_epochs instead")
        if (self.name == "multistep") != bool(self.milestones):
            raise ValueError("key 'schedule.milestones': 'multistep' needs some, the other schedules take none")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"key 'schedule.milestones': expected ascending epochs, found {self.milestones}")
        if self.gamma is not None and self.name != "multistep":
            raise ValueError(f"key 'schedule.gamma': {self.name!r} has no use for it; leave it out")
        return self


class RunConfig(Section):
    """One training run. `nobackfill.training.train` takes it, the run folder keeps it fully resolved."""

    method: str
    data: DataConfig
    model: ModelConfig = ModelConfig()
    old: Path | None = None
    """Run folder of the old model."""
    independent: Path | None = None
    """Run folder of the independently trained new model."""
    teacher_view: Literal["eval", "same"] = "eval"
    """What the teachers see of a training image: the evaluation view, computed once and kept, or the student's own
    random view, computed at every step."""
    init_from: Path | None = None
    """Run folder whose weights to start from, wherever name and shape agree; not to be confused with resuming."""
    freeze: Annotated[str, Field(pattern=r"^(backbone|stages<[1-9]\d{0,2})$")] | None = None
    """What keeps its weights: `backbone` (all but its output layer), or `stages<3` (the stem is stage 0)."""
    loss: dict[str, float] = {}
    """Weights and constants of the method's loss; a key the method does not know is refused."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the weights, with this decay by step; the run folder gets the average."""
    epochs: Positive = 100
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128  # batch norm needs two
    """Images of one optimiser step, over all processes and parts of the batch."""
    accumulate: Positive = 1
    """Work through a batch in this many parts, one after the other, for the sake of memory."""
    sync_batch_norm: bool = True
    """With several processes, take batch norm's statistics over all of them (CUDA only)."""
    compile: bool = False
    """Compile the backbone by torch.compile; a minute at the start, faster steps on a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class EvaluationConfig(Section):
    """One evaluation: the test split as queries of one run and gallery of another (by default the same)."""

    query: Path
    gallery: Path | None = None
    data: DataConfig
    distance: Literal["cosine", "l2"] = "cosine"
    """`l2`: rank by the Euclidean distance of vectors as they are, not normalised."""


INDEPENDENT = "independent"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # a folder's name too


AnyConfig = TypeVar("AnyConfig", bound=Section)


def load_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML config and apply dotted overrides.

    Args:
        path: a YAML file with the keys of `RunConfig`.
        overrides: strings `key.sub=value`; the value is read as YAML.

    Raises:
        ConfigError: naming the file, the key and what was expected.
    """
    return parse_config(read_tree(path, overrides), origin=str(path))


def read_tree(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """The mapping in a YAML file with overrides applied, its keys not yet checked."""
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read this config: {_first_line(error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_first_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: expected a mapping of keys such as 'method' and 'data', found {type(tree).__name__}"
        )
    for override in overrides or []:
        _apply(tree, override)
    return tree


def parse_config(tree: dict[str, Any], origin: str = "config") -> RunConfig:
    """Check a mapping as a `RunConfig`; raises `ConfigError` with `origin` and the key at fault."""
    return parse_as(RunConfig, tree, origin)


def parse_as(kind: type[AnyConfig], tree: dict[str, Any], origin: str) -> AnyConfig:
    """Check a mapping as this kind of config; raises `ConfigError` with `origin` and the key at fault."""
    try:
        return kind.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, kind)}") from error


def dump_config(config: RunConfig) -> str:
    """The config as YAML text that `load_config` reads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def explain(error: pydantic.ValidationError, model: type[BaseModel]) -> str:
    """The first fault of a validation error in one line, with the dotted key and, for a typo, the nearest key."""
    # A value that fits no member of a union is reported once for each member: the first that names the field will do.
    fault = error.errors()[0]
    keys = [str(part) for part in fault["loc"]]
    dotted = ".".join(key for key in keys if not key.startswith(("constrained-", "literal[", "list[", "function-")))
    if fault["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}: {nearest(keys[-1], _fields_at(model, keys[:-1]))}"
    if fault["type"] == "missing":
        return f"missing key {dotted!r}"
    if fault["type"] == "value_error":
        return str(fault["msg"]).removeprefix("Value error, ")
    return f"key {dotted!r}: {fault['msg'].lower()}, found {fault['input']!r}"


def _fields_at(model: type[BaseModel], keys: list[str]) -> list[str]:
    for key in keys:
        annotation = model.model_fields[key].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {override!r}: expected key=value, for example optimizer.lr=0.001")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {_first_line(error)}") from error
    *parents, last = key.split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a section")
        tree = child
    tree[last] = value


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return one_line(error, 1000)
