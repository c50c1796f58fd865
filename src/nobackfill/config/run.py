"""A training run, section by section: model, optimiser, schedule, and the run that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypedDict

import pydantic
from pydantic import Field

from nobackfill.config.data import DataConfig
from nobackfill.config.section import Positive, Section


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
    """BT²: number k of added dimensions."""
    scale: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """BT²: constant C."""
    rectify: bool | None = None
    """BT²: ReLU before the layer of the added dimensions; the paper's ViT has none."""
    classifier_bias: bool = False
    """Whether the classifier W has a bias; the paper's ViT has one."""
    classifier_scale: Annotated[float, Field(gt=0)] | None = None
    """Cosine classifier: the rows of W have unit norm and the logits are the cosines times this factor."""

    pretrained: bool = False
    """Start the timm backbone from its published weights (must be on this machine)."""
    weights: Path | None = None
    """`reference/vit_b16`: folder of a pre-trained ViT to start from (config.json and model.safetensors)."""

    @property
    def classifier(self) -> ClassifierOptions:
        """The options of the classifier, as heads take them."""
        return {"classifier_bias": self.classifier_bias, "classifier_scale": self.classifier_scale}


class OptimizerConfig(Section):
    """Adam, AdamW, SGD with momentum 0.9, or Muon for the backbone's matrices and AdamW for the rest.

    The rest, token tables among it, is NAdamW's with `nesterov`, as in timm.
    """

    name: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    nesterov: bool = False
    """Nesterov's momentum (`sgd` and `muon`)."""
    decay_norms_and_biases: bool = True
    """Whether weight decay also applies to biases and normalisation layers."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each backbone stage has this fraction of the learning rate of the stage above it; 1: the same rate for all."""


PER_EPOCH = ("cosine", "constant", "multistep")


class ScheduleConfig(Section):
    """The learning rate, by epoch (`cosine`, `constant`, `multistep`) or by step (`linear`, `one_cycle`).

    By epoch: linear warm-up lr·(epoch+1)/`warmup_epochs`, then cosine to zero, constant, or times `gamma` at each
    milestone. By step: up to lr over the first `rise` of all steps, then down to zero, by straight lines or by cosines.
    """

    name: Literal["cosine", "constant", "multistep", "linear", "one_cycle"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    rise: Annotated[float, Field(ge=0, lt=1)] | None = None
    """`linear`, `one_cycle`: fraction of the steps over which the rate rises; null: one fifth."""
    milestones: list[Positive] = Field(default_factory=list)
    """`multistep`: epochs after which the rate falls."""
    gamma: Annotated[float, Field(gt=0, lt=1)] | None = None
    """`multistep`: factor for the rate; null: 0.1."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> ScheduleConfig:
        if self.warmup_epochs and self.name not in PER_EPOCH:
            raise ValueError(
                f"key 'schedule.warmup_epochs': {self.name!r} works in steps, not epochs; set schedule.rise instead"
            )
        if self.rise is not None and self.name in PER_EPOCH:
            raise ValueError(
                f"key 'schedule.rise': {self.name!r} works in epochs, not steps; set schedule.warmup_epochs instead"
            )
        if (self.name == "multistep") != bool(self.milestones):
            raise ValueError("key 'schedule.milestones': required for 'multistep', not allowed for other schedules")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"key 'schedule.milestones': expected increasing epochs, found {self.milestones}")
        if self.gamma is not None and self.name != "multistep":
            raise ValueError(f"key 'schedule.gamma': {self.name!r} does not use it; leave it out")
        return self


class MineConfig(Section):
    """Hard negatives of pairs, mined by the old model before training."""

    negatives: Annotated[int, Field(gt=0, le=1000)]
    """Of each pair, beside those of `data.negatives`: the documents nearest to its query that do not answer it."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.05
    """How much less similar (cosine) to the query than its own document they are: nearer ones may well answer it."""


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
    """The teachers' view of a training image: the evaluation view, computed once and cached, or the student's random
    view, computed at every step."""
    init_from: Path | None = None
    """Run folder to take initial weights from, where name and shape match; this is not resuming."""
    init: Literal["fit"] | None = None
    """Text models: start the output layer as the ridge regression of the old vectors on the backbone's; null: as close
    to the identity as its shape allows."""
    mine: MineConfig | None = None
    """Pairs: hard negatives mined by the old model."""
    freeze: Annotated[str, Field(pattern=r"^(backbone|stages<[1-9]\d{0,2})$")] | None = None
    """Layers to freeze: `backbone` (all but its output layer), or `stages<3` (the stem is stage 0)."""
    loss: dict[str, float] = Field(default_factory=dict)
    """Weights and constants of the method's loss; unknown keys are refused."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the weights, with this decay per step; the run folder gets the average."""
    epochs: Positive = 100
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128  # batch norm needs two
    """Samples per optimiser step, over all processes and micro-batches."""
    accumulate: Positive = 1
    """Split each batch into this many micro-batches, to save memory."""
    sync_batch_norm: bool = True
    """With several processes, compute batch norm statistics over all of them (CUDA only)."""
    compile: bool = False
    """Compile the backbone with torch.compile: a minute at the start, then faster steps on a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
