"""The ways to make two frozen spaces comparable, by name. To add one: a function here, and its line in `FITS`.

Each looks at pairs (x, y) and gives an encoder of x whose vectors compare with y. Which space is x depends on the
direction: `to-old` takes new vectors into the old space, `to-new` the other way round.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from nobackfill.arrays import Floats
from nobackfill.config import parse_config
from nobackfill.errors import ConfigError, require
from nobackfill.evaluation import retrieval_metrics
from nobackfill.evaluation.candidates import NEAREST
from nobackfill.evaluation.neighbours import neighbours, overlap
from nobackfill.maps.basis import closed_basis
from nobackfill.maps.folders import basis_encoder, map_encoder, save_encoder
from nobackfill.maps.linear import LinearMap, procrustes, ridge
from nobackfill.maps.moments import Moments
from nobackfill.maps.pairs import Integers
from nobackfill.models import ArrayEncoder, OlderSpace, load

Direction = Literal["to-old", "to-new"]


class Encodes(Protocol):
    """What is needed of an encoder to judge it."""

    def encode(self, samples: Floats) -> Floats:
        """Vectors [n, input_dim] to [n, dim]."""


PENALTIES = tuple(float(value) for value in np.logspace(-4, 2, 13))
STEPS, BATCH, MOST_EPOCHS = 3000, 256, 30
RATES = (1e-3, 1e-4)


@dataclass(frozen=True)
class Settings:
    """What a user may choose.

    Attributes:
        extra_dims: k of BT², every one of them is tried; None: 32, or as many as the sizes ask for.
        scales: C of BT², likewise.
        hidden: units of the small net of `mlp` and `bt2_residual`.
        seed: of the split and of training.
    """

    extra_dims: tuple[int, ...] | None = None
    scales: tuple[float, ...] = (2.0,)
    hidden: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """Pairs in one direction, for the functions below.

    Attributes:
        x_file, y_file, labels_file, rows_file: .npy files; the rows to train on.
        moments: of the rows to fit on, and with those for validation as well.
        x, y, labels: the validation rows.
        prefix: the generation of y.
        folder: where run folders are written.
    """

    direction: Direction
    x_file: Path
    y_file: Path
    labels_file: Path | None
    rows_file: Path
    rows: int
    moments: Moments
    all_moments: Moments
    x: Floats
    y: Floats
    labels: Integers | None
    prefix: OlderSpace
    folder: Path
    settings: Settings

    def score(self, encoder: Encodes) -> float:
        """On the validation rows: mAP where there are labels, else agreement with a full backfill's nearest items."""
        mapped = encoder.encode(self.x)
        query, gallery = (mapped, self.y) if self.direction == "to-old" else (self.y, mapped)
        if self.labels is not None:
            return retrieval_metrics(query, gallery, self.labels, self.labels, exclude_self=True).mean_ap
        nearest = neighbours(query, gallery, NEAREST, exclude_self=True)
        return float(overlap(nearest, self._full_backfill).mean())

    def label_loss(self, otherwise: dict[str, float]) -> dict[str, float]:
        """Cosine to the counterpart; and prototypes where there are labels, else what is given here."""
        return {"old": 5.0, **({"prototypes": 1.0} if self.labels is not None else otherwise)}

    @cached_property
    def _full_backfill(self) -> Integers:
        new = self.x if self.direction == "to-old" else self.y
        return neighbours(new, new, NEAREST, exclude_self=True)

    @cached_property
    def best_penalty(self) -> float:
        """Of ridge, by retrieval on the validation rows."""
        scores = [self.score(map_encoder("ridge", one, self.prefix)) for one in ridge(self.moments, PENALTIES)]
        return PENALTIES[int(np.argmax(scores))]

    @cached_property
    def ridge(self) -> LinearMap:
        """With that penalty, fitted without the validation rows."""
        return ridge(self.moments, [self.best_penalty])[0]


@dataclass(frozen=True)
class Candidate:
    """A fitted encoder.

    Attributes:
        folder: its run folder.
        choice: settings that were chosen for it, in words.
        score: `Task.score`.
    """

    name: str
    direction: Direction
    folder: Path
    choice: str
    score: float


def _procrustes(task: Task) -> Iterator[Candidate]:
    maps = [procrustes(task.moments, centred=centred) for centred in (True, False)]
    scores = [task.score(map_encoder("procrustes", one, task.prefix)) for one in maps]
    best = procrustes(task.all_moments, centred=scores[0] >= scores[1])
    yield _kept(task, "procrustes", map_encoder("procrustes", best, task.prefix), best.choice, max(scores))


def _ridge(task: Task) -> Iterator[Candidate]:
    score = task.score(map_encoder("ridge", task.ridge, task.prefix))
    best = ridge(task.all_moments, [task.best_penalty])[0]
    yield _kept(task, "ridge", map_encoder("ridge", best, task.prefix), best.choice, score)


def _mlp(task: Task) -> Iterator[Candidate]:
    start = map_encoder("mlp", task.ridge, task.prefix)
    backbone, model = f"vectors/linear+{task.settings.hidden}", {"embedding_dim": task.prefix.dim}
    yield _trained(task, "mlp", start, backbone, model, task.label_loss({}))


def _infonce(task: Task) -> Iterator[Candidate]:
    start = map_encoder("infonce", task.ridge, task.prefix)
    loss = {"old": 0.0, "contrast": 1.0}
    yield _trained(task, "infonce", start, "vectors/linear", {"embedding_dim": task.prefix.dim}, loss)


def _bt2(task: Task, *, residual: bool = False) -> Iterator[Candidate]:
    name = "bt2_residual" if residual else "bt2"
    hidden = task.settings.hidden if residual else 0
    loss = task.label_loss({"contrast": 1.0})
    dim, sizes = task.x.shape[1], extra_dims(task.settings, task.x.shape[1], task.prefix.dim)
    for k in sizes:
        for scale in task.settings.scales:
            start = basis_encoder("bt2_vectors", closed_basis(task.moments, task.ridge, k), scale, task.prefix, hidden)
            alone = len(sizes) == len(task.settings.scales) == 1
            model = {"embedding_dim": dim, "extra_dim": k, "scale": scale}
            backbone = f"vectors/keep+{hidden}" if residual else "vectors/keep"
            yield _trained(task, name if alone else f"{name}_k{k}_c{scale:g}", start, backbone, model, loss)


def extra_dims(settings: Settings, dim: int, old_dim: int) -> tuple[int, ...]:
    """The k to try for d and d_o; raises `ConfigError` for one that leaves no room for the old space, or exceeds it."""
    for k in settings.extra_dims or ():
        if not 0 <= k <= old_dim or dim + k < old_dim:
            raise ConfigError(f"--extra-dim {k}: expected {max(0, old_dim - dim)} to {old_dim} for {dim} → {old_dim}")
    return settings.extra_dims or (max(min(32, old_dim), old_dim - dim),)


def _bt2_residual(task: Task) -> Iterator[Candidate]:
    yield from _bt2(task, residual=True)


FITS: dict[str, tuple[Callable[[Task], Iterator[Candidate]], tuple[Direction, ...]]] = {
    "procrustes": (_procrustes, ("to-old", "to-new")),
    "ridge": (_ridge, ("to-old", "to-new")),
    "mlp": (_mlp, ("to-old", "to-new")),
    "infonce": (_infonce, ("to-old", "to-new")),
    "bt2": (_bt2, ("to-old",)),
    "bt2_residual": (_bt2_residual, ("to-old",)),
}
"""Name → how it is fitted, and the directions it can take."""
CLOSED_FORMS = ("procrustes", "ridge")
"""Fitted without PyTorch."""
DEFAULT_FITS = (*CLOSED_FORMS, "mlp", "infonce", "bt2")


def require_for(names: Sequence[str]) -> None:
    """Raise `MissingPackageError` if one of these is trained and PyTorch is not installed."""
    for name in names:
        if name not in CLOSED_FORMS:
            require("torch", "accelerate", what=f"--method {name}")


def _kept(task: Task, name: str, encoder: ArrayEncoder, choice: str, score: float) -> Candidate:
    folder = task.folder / f"{name}-{task.direction}"
    shutil.rmtree(folder, ignore_errors=True)  # of a fit that was cut short
    save_encoder(encoder, folder, {"choice": choice, "validation": score})
    return Candidate(name, task.direction, folder, choice, score)


def _trained(
    task: Task, name: str, start: ArrayEncoder, backbone: str, model: Mapping[str, object], loss: dict[str, float]
) -> Candidate:
    """Train from a closed-form start at each rate, and keep what does best on the validation rows."""
    before = _kept(task, f"{name}-start", start, "closed form; training did not help", task.score(start))
    candidates = [before, *(_at_rate(task, name, before, start, backbone, model, loss, rate) for rate in RATES)]
    return dataclasses.replace(max(candidates, key=lambda one: one.score), name=name)


def _at_rate(
    task: Task,
    name: str,
    before: Candidate,
    start: ArrayEncoder,
    backbone: str,
    model: Mapping[str, object],
    loss: dict[str, float],
    rate: float,
) -> Candidate:
    from nobackfill.training import train  # needs PyTorch, which closed forms do without

    epochs = int(np.clip(round(STEPS * BATCH / task.rows), 2, MOST_EPOCHS))
    data = {
        "name": "vectors",
        "vectors": str(task.x_file),
        "old_vectors": str(task.y_file),
        "rows": str(task.rows_file),
        "labels": str(task.labels_file) if task.labels_file and loss.get("prototypes") else None,
        "old_name": task.prefix.generation,
    }
    tree = {
        "method": start.spec.generation.rpartition("-")[0],
        "data": data,
        "model": {"backbone": backbone, **model},
        "loss": loss,
        "init_from": str(before.folder),
        "optimizer": {"name": "adam", "lr": rate},
        "epochs": epochs,
        "batch_size": min(BATCH, task.rows),
        "precision": "fp32",
        "seed": task.settings.seed,
    }
    folder = train(parse_config(tree), task.folder / f"{name}-{task.direction}-{rate:g}", resume=True)
    return Candidate(name, task.direction, folder, f"{epochs} epochs at {rate:g}", task.score(load(folder, "cpu")))
