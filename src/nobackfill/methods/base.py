"""What a method is: the teachers it needs, its head, its loss. No loops, no files, no devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from nobackfill.config import Kind, ModelConfig
from nobackfill.errors import ConfigError, nearest
from nobackfill.models.heads import Head

Value = TypeVar("Value")
Teacher = Literal["old", "independent", "prototypes", "statistics"]


@dataclass(frozen=True)
class Batch:
    """What a loss may look at beside the network's output; a teacher the method does not name is None.

    Attributes:
        labels: int64 [n], class among those trained on.
        old: float32 [n, d_o], unit vectors of the old model for these images.
        independent: float32 [n, d], unit vectors of the independent new model.
        prototypes: float32 [classes, d_o], mean old vector of each class over the training images; not renormalised.
        statistics: what the method's `statistics` says of each class, by name; first axis: classes.
        progress: share of all steps that are done, 0 ≤ p < 1.
        classifier: the head's W, for losses that show it something else than f.
        own: the method's own modules.
    """

    labels: Tensor
    old: Tensor | None = None
    independent: Tensor | None = None
    prototypes: Tensor | None = None
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    progress: float = 0.0
    classifier: nn.Linear | None = None
    own: nn.Module | None = None


class Method:
    """Base of methods.

    Attributes:
        idea: in a few words; where it is empty, the first line of the method's module says it.
        kinds: the kinds of sample it takes.
        teachers: which of "old", "independent", "prototypes", "statistics" the loss looks at, where their weights are
            above 0; one without a weight of its name is always looked at.
        loss_defaults: the keys of the config's `loss` and their default values, the published ones. The weight of what
            a teacher says has the teacher's name.
        model_defaults: the optional keys of the config's `model` that this method uses, with their defaults.
        needs_labels: whether it has no use for samples without class labels.
        classifies: whether its loss looks at a classifier W, which the config's `model` has options for.
        whole_batch: whether the loss compares samples with each other or counts them: then it gets the samples of all
            processes at once, and every process computes the same. A micro-batch counts as a batch.
        at_most_one: keys of `loss` that are shares.
        ties: those of the terms that make the new model compatible with the old one; at least one must be above 0.
        above_zero: those that must not be 0.
        whole: those that are whole numbers.
        constants: the weights and constants in force.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"image", "text", "vector"})
    teachers: ClassVar[frozenset[Teacher]] = frozenset()
    loss_defaults: ClassVar[Mapping[str, float]] = {}
    model_defaults: ClassVar[Mapping[str, int | float]] = {}
    idea: ClassVar[str] = ""
    needs_labels: ClassVar[bool] = False
    classifies: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = False
    at_most_one: ClassVar[frozenset[str]] = frozenset({"label_smoothing"})
    ties: ClassVar[tuple[str, ...]] = ()
    above_zero: ClassVar[frozenset[str]] = frozenset({"temperature", "prototype_scale"})
    whole: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, loss: Mapping[str, float]) -> None:
        for key, value in loss.items():
            if key not in self.loss_defaults:
                raise ConfigError(f"unknown key 'loss.{key}': {nearest(key, self.loss_defaults)}")
            if value < 0:
                raise ConfigError(f"key 'loss.{key}': expected a value of at least 0, found {value}")
            if key in self.above_zero and value == 0:
                raise ConfigError(f"key 'loss.{key}': expected a value above 0, found 0")
            if key in self.at_most_one and value > 1:
                raise ConfigError(f"key 'loss.{key}': expected a value of at most 1, found {value}")
            if key in self.whole and value % 1:
                raise ConfigError(f"key 'loss.{key}': expected a whole number, found {value}")
        self.constants: dict[str, float] = {**self.loss_defaults, **loss}
        if self.ties and not any(self.constants[key] for key in self.ties):
            named = ", ".join(f"'loss.{key}'" for key in self.ties)
            raise ConfigError(
                f"key{'s' * (len(self.ties) > 1)} {named}: 0, so that nothing makes the new model compatible with the "
                "old one; set a weight above 0, or train with method: independent"
            )

    def check_input(self, model: ModelConfig, shape: tuple[int, ...]) -> None:
        """Raise `ConfigError` if the model does not suit samples of this shape; most methods take any."""

    @property
    def needed(self) -> frozenset[Teacher]:
        """The teachers whose weight is above 0."""
        return frozenset(name for name in self.teachers if self.constants.get(name, 1) > 0)

    def head(self, model: ModelConfig, old_dim: int, classes: int) -> Head:
        """The head for this model section; `old_dim` is 0 where there is no old model."""
        raise NotImplementedError("a method defines head")

    def modules(self, model: ModelConfig, old_dim: int, classes: int) -> nn.Module | None:  # noqa: ARG002
        """What is trained beside the network, kept in checkpoints and dropped at the end; most methods have none."""
        return None

    def statistics(self, old: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:  # noqa: ARG002
        """What a loss wants to know of each class of old vectors, computed once.

        Args:
            old: float16 or float32 [n, d_o], unit vectors of the training samples.
            labels: int64 [n].
            classes: their number; a class may have no sample.

        Returns:
            By name, float32 tensors whose first axis is the classes.
        """
        return {}

    def loss(self, output: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Named scalar parts, each already weighted; training minimises their sum.

        Args:
            output: the head's parts (`nobackfill.models.heads`).
            batch: labels and teachers of the same images.
        """
        raise NotImplementedError("a method defines loss")


def required(value: Value | None) -> Value:
    """A teacher's values, or a model setting, that the method has named in `teachers` or `model_defaults`."""
    if value is None:
        raise ConfigError("this method needs a teacher or setting that its teachers or model_defaults do not list")
    return value


def one_minus_cosine(vectors: Tensor, targets: Tensor) -> Tensor:
    """1 − mean cosine of matching rows; [n, d] and [n, d] to a scalar."""
    return 1 - cosine_similarity(vectors, targets, dim=1).mean()


def prototype_loss(
    vectors: Tensor, prototypes: Tensor, labels: Tensor, *, scale: float, label_smoothing: float = 0.0
) -> Tensor:
    """Cross entropy of scale·(v·Wᵒᵀ): the old model's class means as a fixed classifier (arXiv 2003.11942, eq. 3).

    With unit vectors and scale 1 (published) the logits stay within [−1, 1], so this term is nearly flat; 16 sharpens
    it.
    """
    return cross_entropy(scale * vectors @ prototypes.T, labels, label_smoothing=label_smoothing)


def old_terms(compatible: Tensor, batch: Batch, weight: Mapping[str, float]) -> dict[str, Tensor]:
    """`prototypes`·CE(s·normalize(b)·Wᵒᵀ, y) and `old`·(1 − cos(b, φ_old)), s = `prototype_scale`; none of weight 0.

    Args:
        compatible: b, float32 [n, d_o] of any norm.
        batch: labels and teachers of the same images.
        weight: by the keys above.
    """
    parts = {}
    if weight["prototypes"]:
        prototypes = required(batch.prototypes)
        parts["prototypes"] = weight["prototypes"] * prototype_loss(
            normalize(compatible), prototypes, batch.labels, scale=weight["prototype_scale"]
        )
    if weight["old"]:
        parts["old"] = weight["old"] * one_minus_cosine(compatible, required(batch.old))
    return parts
