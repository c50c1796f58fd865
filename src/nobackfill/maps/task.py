"""What a way of fitting is given, and what it gives back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from nobackfill.arrays import Floats
from nobackfill.data.vectors import read_rows
from nobackfill.evaluation import retrieval_metrics
from nobackfill.evaluation.candidates import compared_among
from nobackfill.evaluation.kinds import Queries
from nobackfill.evaluation.neighbours import neighbours, overlap
from nobackfill.files import read_npy
from nobackfill.maps import budget
from nobackfill.maps.folders import map_encoder, save_encoder
from nobackfill.maps.linear import LinearMap, ridge
from nobackfill.maps.moments import Moments
from nobackfill.maps.pairs import Integers, unit_rows_of
from nobackfill.models import ArrayEncoder, OlderSpace
from nobackfill.models.runfolder import is_run, read_record

Direction = Literal["to-old", "to-new"]
Inputs = Literal["x", "old + new", "old + side"]
"""What an encoder takes: the vectors of one model, or two vectors of an item side by side."""


class Encodes(Protocol):
    """What is needed of an encoder to judge it."""

    def encode(self, samples: Floats) -> Floats:
        """Vectors [n, input_dim] to [n, dim]."""


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
        x, y, labels: the validation rows; no labels where too few of them share one to choose by.
        side_file, side: a second vector of every item, stored beside the old one, and that of the validation rows.
        prefix, x_space: the generations of y and of x.
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
    x_space: OlderSpace
    side_file: Path | None = None
    side: Floats | None = None

    @property
    def trained_rows(self) -> Integers:
        """The rows to train on."""
        rows: Integers = read_npy(self.rows_file)
        return rows

    def rows_of(self, file: Path) -> Floats:
        """The rows to train on of one of the files, at unit norm."""
        return unit_rows_of(read_rows(file), self.trained_rows, str(file))

    def score(self, encoder: Encodes) -> float:
        """On the validation rows: mAP where there are labels, else agreement with a full backfill's nearest items."""
        return self.score_of(encoder.encode(self.x))

    def score_of(self, mapped: Floats, counterparts: Floats | None = None) -> float:
        """The same of vectors that are mapped already, searched with or by y (or what y was mapped to)."""
        other = self.y if counterparts is None else counterparts
        query, gallery = (mapped, other) if self.direction == "to-old" else (other, mapped)
        if self.labels is not None:
            return retrieval_metrics(query, gallery, self.labels, self.labels, exclude_self=True).mean_ap
        nearest = neighbours(query, gallery, self._compared, exclude_self=True)
        return float(overlap(nearest, self._full_backfill).mean())

    def label_loss(self, otherwise: dict[str, float]) -> dict[str, float]:
        """Cosine to the counterpart; and prototypes where there are labels, else what is given here."""
        return {"old": 5.0, **({"prototypes": 1.0} if self.labels_file is not None else otherwise)}

    @property
    def _compared(self) -> int:
        return compared_among(len(self.y))

    @cached_property
    def _full_backfill(self) -> Integers:
        new = self.x if self.direction == "to-old" else self.y
        return neighbours(new, new, self._compared, exclude_self=True)

    @cached_property
    def best_penalty(self) -> float:
        """Of ridge, by retrieval on the validation rows."""
        scores = [self.score(map_encoder("ridge", one, self.prefix)) for one in ridge(self.moments, budget.PENALTIES)]
        return budget.PENALTIES[int(np.argmax(scores))]

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
        inputs: what its encoder takes.
        query_folder: run folder of the encoder of new queries, where a mapped gallery needs one.
    """

    name: str
    direction: Direction
    folder: Path
    choice: str
    score: float
    inputs: Inputs = "x"
    query_folder: Path | None = None

    @property
    def queries(self) -> Queries:
        """Models that must embed every query."""
        return "old + new" if self.inputs == "old + new" else "new"


def kept(task: Task, name: str, encoder: ArrayEncoder, choice: str, score: float, inputs: Inputs = "x") -> Candidate:
    """Write a fitted encoder as the run folder of a candidate."""
    folder = folder_of(task, name)
    shutil.rmtree(folder, ignore_errors=True)  # of a fit that was cut short
    save_encoder(encoder, folder, {"choice": choice, "validation": score})
    return Candidate(name, task.direction, folder, choice, score, inputs)


def finished(task: Task, name: str, inputs: Inputs = "x") -> Candidate | None:
    """What this fit had finished before it was killed; that it is the same fit of the same pairs was seen before."""
    folder = folder_of(task, name)
    if not is_run(folder):
        return None
    metrics = read_record(folder / "metrics.json")
    return Candidate(name, task.direction, folder, str(metrics["choice"]), float(str(metrics["validation"])), inputs)


def folder_of(task: Task, name: str) -> Path:
    """Run folder of a candidate of this name."""
    return task.folder / f"{name}-{task.direction}"
