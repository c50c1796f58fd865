"""What the teachers say of the training samples: their vectors, kept between runs, or computed at every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import normalize

from nobackfill.cache import Arrays, cached, is_cached
from nobackfill.data.preprocessing import Preprocessing
from nobackfill.data.samples import Samples
from nobackfill.errors import ConfigError
from nobackfill.methods.base import Batch
from nobackfill.models.encoder import Encoder
from nobackfill.training.processes import encode_shared, from_main


@dataclass(frozen=True)
class Teachers:
    """Arrays over the training samples, by position.

    Attributes:
        labels: int64 [n], class among those trained on.
        vectors: by teacher (`old`, `independent`) float16 [n, dim] (float32 where they come with the data), unit
            vectors up to rounding; only of the teachers that the method needs, and none where they see the student's
            view.
        prototypes: float32 [classes, d_o]; None where the method has none.
        live: the teachers themselves, where they see the student's view.
        statistics: `Method.statistics`.
    """

    labels: Tensor
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    prototypes: Tensor | None = None
    live: Mapping[str, Encoder] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device, *, rows: bool) -> Teachers:
        """On this device: prototypes and live teachers, and with `rows` the arrays over the samples as well."""
        location = device if rows else torch.device("cpu")
        return Teachers(
            self.labels.to(location),
            {name: vectors.to(location) for name, vectors in self.vectors.items()},
            None if self.prototypes is None else self.prototypes.to(device),
            {name: encoder.to(device) for name, encoder in self.live.items()},
            {name: each.to(device) for name, each in self.statistics.items()},
        )

    def batch(self, positions: Tensor, views: Tensor) -> Batch:
        """What the loss may look at, on the device of `views` (the student's, not normalised)."""
        device = views.device
        rows = positions.to(self.labels.device)
        vectors = {name: each[rows].to(device, non_blocking=True).float() for name, each in self.vectors.items()}
        vectors.update({name: _look(encoder, views) for name, encoder in self.live.items()})
        labels = self.labels[rows].to(device, non_blocking=True)
        return Batch(labels, vectors.get("old"), vectors.get("independent"), self.prototypes, self.statistics)


def brought_vectors(samples: Samples, teachers: Iterable[str]) -> dict[str, Tensor]:
    """The vectors of these teachers that come with the samples: unit vectors float32 [n, dim] by teacher."""
    given = {name: samples.vectors_of(name) for name in teachers}
    return {
        name: normalize(torch.from_numpy(np.ascontiguousarray(rows)).float())
        for name, rows in given.items()
        if rows is not None
    }


def teacher_vectors(encoder: Encoder, samples: Samples, workers: int, accelerator: Accelerator) -> Tensor:
    """Unit vectors float16 [n, dim] of a teacher, in the order of the samples, memory-mapped from the cache.

    They are computed when no run before has: the key is the teacher's fingerprint, the samples and their evaluation
    view. A generation whose own vectors have another norm (BT²) is brought to unit norm too: both the cosine terms and
    the prototypes of the published losses assume it. Half precision moves a cosine by less than 0.001.
    """
    view = encoder.spec.preprocessing.model_dump()
    key = {"teacher": encoder.spec.fingerprint, "samples": samples.digest(encoder.spec.modality), "view": view}

    def build() -> Arrays:
        return {"vectors": _halved(encoder.encode_set(samples, workers))}

    if accelerator.num_processes == 1:
        return torch.from_numpy(cached("teachers", key, build)["vectors"])
    if not from_main(accelerator, is_cached("teachers", key)):
        shared = _halved(encode_shared(encoder, samples, workers, accelerator))
        if accelerator.is_main_process:
            cached("teachers", key, lambda: {"vectors": shared})
        accelerator.wait_for_everyone()
    return torch.from_numpy(cached("teachers", key, build)["vectors"])


def check_view(name: str, encoder: Encoder) -> None:
    """Raises `ConfigError` if this teacher cannot look at the student's view."""
    if encoder.spec.modality != "image":
        raise ConfigError(
            f"key 'teacher_view': the {name} teacher reads {encoder.spec.modality}; use teacher_view: eval"
        )


def class_means(vectors: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Prototypes Wᵒ: the mean vector of each class, not renormalised; [n, d] and int64 [n] to float32 [classes, d].

    A class without a sample would get the zero vector, which attracts nothing and repels nothing.
    """
    sums = torch.zeros(classes, vectors.shape[1], dtype=torch.float64)
    for start in range(0, len(labels), 65536):
        some = slice(start, start + 65536)
        sums.index_add_(0, labels[some], vectors[some].double())
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return (sums / counts[:, None]).float()


def _halved(vectors: np.ndarray) -> np.ndarray:
    return normalize(torch.from_numpy(vectors)).half().numpy()


@torch.no_grad()
def _look(encoder: Encoder, views: Tensor) -> Tensor:
    preprocessing = encoder.spec.preprocessing
    assert isinstance(preprocessing, Preprocessing)  # noqa: S101 (`check_view` has refused the others)
    whole = preprocessing.model_copy(update={"resize": None})  # the student's view is cropped already
    return normalize(encoder(whole.normalize(whole.resized(views))))
