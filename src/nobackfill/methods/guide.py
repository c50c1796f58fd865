"""The training methods side by side, as their classes describe themselves, and which one to choose."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass

from nobackfill.config import Kind
from nobackfill.methods import METHODS, PAIR_METHODS
from nobackfill.methods.base import Method

CHOICE = """\
Which method?

Can the new model be trained, or at least fine-tuned?
├─ no: it is frozen, or behind an API
│    → `nobackfill fit` on pairs of vectors; compare its verdict with doing nothing
└─ yes
   ├─ May every item be embedded again before the first new query?
   │    → `independent`: train freely and replace the gallery
   └─ no: new queries must work in the old gallery
      ├─ Do the training samples have class labels?
      │  └─ no → pairs of query and document: a method that needs "labels or pairs"
      ├─ Is there an old model that can embed the training samples, or are its vectors of them kept?
      │  └─ no → none of these: compatibility is learned from old vectors
      └─ yes
         ├─ May vectors grow by a few values (new queries use their first values in the old gallery)?
         │  ├─ yes → `bt2`; `loss.independent: 0` saves a training run: as good on texts, less mAP on CIFAR-100.
         │  │        `prefix` for a plain embedding without rotations
         │  └─ no, the size is fixed → `ract` for the first hit (single old vectors), `bct` for the whole ranking
         │       (class means alone)
         ├─ Are labels or old vectors noisy? → `unibct` (refined centres), `mixbct` (leaves the odd ones out)
         └─ Will many generations follow? → `bt2`, `ract` or `prefix`
Then measure: `nobackfill run` trains several methods on the same data, `nobackfill evaluate` assesses an upgrade.
"""


@dataclass(frozen=True)
class MethodCard:
    """What there is to know before choosing a method.

    Attributes:
        name: in a config.
        idea: one line.
        loss: its equation, in the words of the class.
        samples: kinds of sample it takes.
        needs: what has to be there: labels, and what each teacher says.
        runs: training runs it takes, the independent model's included.
        beside: whether modules are trained beside the network, and dropped.
        whole_batch: whether its loss looks at the batch of all processes together.
        settings: keys of `loss` and `model` that are its own, with their defaults.
    """

    name: str
    idea: str
    loss: str
    samples: tuple[Kind, ...]
    needs: tuple[str, ...]
    runs: int
    beside: bool
    whole_batch: bool
    settings: dict[str, float]


TEACHERS = {
    "old": "old vectors",
    "prototypes": "old class means",
    "statistics": "statistics of the old classes",
    "independent": "an independent new model",
}


def cards() -> list[MethodCard]:
    """Every method, in the order of the registry."""
    return [_card(name, method) for name, method in METHODS.items()]


def _card(name: str, method: type[Method]) -> MethodCard:
    teachers = method({}).needed
    labels = ["labels"] if "label_smoothing" in method.loss_defaults else []
    pairs: set[Kind] = {"pair"} if name in PAIR_METHODS else set()
    if labels and pairs:
        labels = ["labels or pairs"]
    return MethodCard(
        name=name,
        idea=method.idea or _idea(method),
        loss=_equation(method),
        samples=tuple(sorted(method.kinds | pairs)),
        needs=(*labels, *(words for teacher, words in TEACHERS.items() if teacher in teachers)),
        runs=2 if "independent" in teachers else 1,
        beside=method.modules is not Method.modules,
        whole_batch=method.whole_batch,
        settings={**method.loss_defaults, **method.model_defaults},
    )


def _idea(method: type[Method]) -> str:
    words = inspect.getdoc(sys.modules[method.__module__]) or ""
    return words.split("\n")[0].rstrip(".")


def _equation(method: type[Method]) -> str:
    """The paragraph that begins with "L =": the method's own, or that of the class whose loss it has."""
    for each in method.__mro__:
        for paragraph in inspect.cleandoc(each.__doc__ or "").split("\n\n"):
            if paragraph.startswith("L ="):
                return " ".join(paragraph.split())
    return ""
