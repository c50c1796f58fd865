"""The gradient of a batch of pairs, as large as its embeddings allow: its texts pass the network in micro-batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from nobackfill.data import PairSamples, TextSamples
from nobackfill.methods import Method, PairBatch, PairMethod
from nobackfill.models import Encoder
from nobackfill.training.checkpoint import random_states, restore_random
from nobackfill.training.pair_processes import WholeBatch, mean_gradients
from nobackfill.training.teachers import teacher_vectors

LOOKED_AT = ("new", "compatible")  # what of a head's output a loss of pairs reads


@dataclass(frozen=True)
class PairTeachers:
    """Old and independent vectors of all texts, each text once.

    Attributes:
        samples: the pairs, their texts tokenized.
        queries, documents: by teacher, float16 [texts, dim], unit vectors up to rounding.
    """

    samples: PairSamples
    queries: Mapping[str, Tensor] = field(default_factory=dict)
    documents: Mapping[str, Tensor] = field(default_factory=dict)

    def batch(self, query: NDArray[np.int64], document: NDArray[np.int64], device: torch.device) -> PairBatch:
        """What the loss may look at, of queries [n] and documents [m] by their positions among the texts."""

        def rows(vectors: Mapping[str, Tensor], teacher: str, index: NDArray[np.int64]) -> Tensor | None:
            found = vectors.get(teacher)
            return None if found is None else found[torch.from_numpy(index)].to(device).float()

        return PairBatch(
            torch.from_numpy(self.samples.answers(query, document)).to(device),
            rows(self.queries, "old", query),
            rows(self.documents, "old", document),
            rows(self.queries, "independent", query),
            rows(self.documents, "independent", document),
        )


def pair_teachers(
    encoders: Mapping[str, Encoder], wanted: Iterable[str], samples: PairSamples, accelerator: Accelerator
) -> PairTeachers:
    """The vectors of the wanted teachers, from the cache where they have been computed before."""
    sides: list[dict[str, Tensor]] = [
        {name: teacher_vectors(encoders[name], texts, 0, accelerator) for name in wanted}
        for texts in (samples.queries, samples.documents)
    ]
    return PairTeachers(samples, *sides)


@dataclass(frozen=True)
class _Side:
    """Texts that pass the network together."""

    texts: TextSamples
    index: NDArray[np.int64]


def pair_gradients(
    network: nn.Module,
    method: Method,
    teachers: PairTeachers,
    micro_batches: Sequence[Tensor],
    *,
    accelerator: Accelerator,
    precision: str,
) -> tuple[dict[str, Tensor], int]:
    """Add the gradient of one batch to the network's; equal to that of one large batch, however it is cut.

    As in GradCache (arXiv 2101.06983) all embeddings are computed first, then the loss and its gradient in them, then
    each micro-batch once more, with the same random numbers, to carry that gradient on to the weights. A single
    micro-batch is computed once. Of several processes each embeds its part of the batch; all compute the same loss, and
    end with the same gradient.

    Args:
        network: in training mode, on the device; no wrapper of it, which would average gradients part by part.
        method: whose loss it is.
        teachers: of all pairs.
        micro_batches: positions of this process's pairs, int64.
        accelerator: knows the device and the other processes.
        precision: bf16 or fp32, of the backbone.

    Returns:
        The parts of the loss, and how many documents were no negatives of a query because they answer it as well.
    """
    if not isinstance(method, PairMethod):
        raise TypeError(f"expected a method of pairs, found {type(method).__name__}")
    samples, device = teachers.samples, accelerator.device
    rows = [positions.cpu().numpy() for positions in micro_batches]
    whole = WholeBatch.of(samples, np.concatenate(rows), accelerator)
    negatives = [whole.negatives(some) for some in rows]
    sides = [
        *(_Side(samples.queries, samples.query[some]) for some in rows),
        *(_Side(samples.documents, samples.document[some]) for some in rows),
        *(_Side(samples.documents, some) for some in negatives if len(some)),
    ]
    batch = teachers.batch(whole.queries, whole.documents, device)
    masked = int(batch.answers.sum()) - len(batch.answers)

    def embed(side: _Side) -> dict[str, Tensor]:
        if side.texts.tokens is None:
            raise ValueError("expected texts with tokens")
        tokens = torch.from_numpy(side.texts.tokens.batch(side.index)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = network(tokens)
        return {name: output[name] for name in LOOKED_AT if name in output}

    if len(rows) == 1:
        parts = _loss(method, [embed(side) for side in sides], whole, batch)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        mean_gradients(network, accelerator)
        return parts, masked
    states, outputs = [], []
    with torch.no_grad():
        for side in sides:
            states.append(random_states())
            outputs.append({name: value.requires_grad_() for name, value in embed(side).items()})
    parts = _loss(method, outputs, whole, batch)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    after = random_states()
    for side, state, first in zip(sides, states, outputs, strict=True):
        restore_random(state)
        again = embed(side)
        pulled = [(again[name] * value.grad).sum() for name, value in first.items() if value.grad is not None]
        torch.stack(pulled).sum().backward()  # type: ignore[no-untyped-call]
    restore_random(after)
    mean_gradients(network, accelerator)
    return parts, masked


def _loss(
    method: PairMethod, outputs: list[dict[str, Tensor]], whole: WholeBatch, batch: PairBatch
) -> dict[str, Tensor]:
    """The loss of the whole batch, from this process's outputs: of queries, then positives, then negatives."""
    shared = {name: whole.shared(torch.cat([each[name] for each in outputs])) for name in outputs[0]}
    queries, documents = ({name: sides[number] for name, sides in shared.items()} for number in (0, 1))
    return method.pair_loss(queries, documents, batch)
