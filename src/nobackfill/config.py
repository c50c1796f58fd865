"""What a training run is made of, as one checked YAML file.

`load_config` reads a file and dotted overrides; an unknown key, a wrong type or a value out of range ends in a
`ConfigError` that names the key. Relative paths are relative to the working directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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

    flip: bool = False
    """Mirror left-right with probability one half."""
    crop: Literal["none", "padded", "resized"] = "none"
    """`padded`: a window of the image padded by `padding`; `resized`: 8–100 % of the area, stretched to full size."""
    padding: Annotated[int, Field(gt=0, le=1024)] = 4


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
    on_bad_image: Literal["fail", "skip"] = "fail"
    """What to do with image files that do not decode; `skip` reads all files once before, and lists those left out."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that decode image files; sets that fit in memory need none."""


class ModelConfig(Section):
    """Backbone and embedding. What a method does not use must be left out."""

    backbone: str = "smallnet32"
    """`smallnetW` (a small residual net of width W), any timm model name, or `small-stem/` and a timm ResNet's name."""
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
    pretrained: bool = False
    """Start the timm backbone from its published weights (needs them on this machine)."""
    weights: Path | None = None
    """`reference/vit_b16`: folder of a pre-trained ViT to start from (config.json and model.safetensors)."""


class OptimizerConfig(Section):
    """Adam, AdamW, or SGD with momentum 0.9."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each stage of the backbone learns at this share of the rate of the stage above it; 1: all alike."""


class ScheduleConfig(Section):
    """Learning rate per epoch: linear warm-up lr·(epoch+1)/warm-up, then cosine to zero or constant."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0


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


INDEPENDENT = "independent"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # a folder's name too


class ScenarioRun(Section):
    """A run of a scenario: its config with changes, each `key=value` as for `--set`; a bare path is a config as is."""

    config: Path
    set: list[str] = []

    @pydantic.model_validator(mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return {"config": value} if isinstance(value, str | Path) else value


class ScenarioConfig(Section):
    """A lineage: for each generation, oldest first, a run by method. Made by `load_scenario`."""

    generations: dict[Name, dict[Name, ScenarioRun]]
    """Each has `independent`; the first has nothing else; all later ones have the same methods."""
    set: list[str] = []
    """Changes to every run."""
    seeds: Positive = 3

    @pydantic.model_validator(mode="after")
    def _check(self) -> ScenarioConfig:
        first, *later = self.generations.values() or [{}]
        if not later:
            raise ValueError("expected at least two generations")
        if set(first) != {INDEPENDENT}:
            raise ValueError(f"the first generation has one model, {INDEPENDENT!r}")
        for name, methods in list(self.generations.items())[1:]:
            if INDEPENDENT not in methods or set(methods) != set(later[0]):
                raise ValueError(f"generation {name!r}: expected {INDEPENDENT!r} and the methods of the others")
        return self


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


def load_scenario(path: str | Path, overrides: list[str] | None = None) -> ScenarioConfig:
    """Read a scenario; the paths of its run configs are relative to its own folder. Raises `ConfigError`."""
    scenario = parse_as(ScenarioConfig, read_tree(path, overrides), str(path))
    folder = Path(path).parent
    generations = {
        # The independent model first: it is the upper bound, and a teacher of others.
        name: {
            method: methods[method].model_copy(update={"config": folder / methods[method].config})
            for method in sorted(methods, key=lambda method: method != INDEPENDENT)
        }
        for name, methods in scenario.generations.items()
    }
    return scenario.model_copy(update={"generations": generations})


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
