"""A batch of pairs that several processes share: each embeds its own part, and all see the loss of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from nobackfill.data import PairSamples

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class WholeBatch:
    """The pairs of a batch, by the process that embeds them.

    Attributes:
        samples: all pairs.
        parts: by rank, positions of pairs, as many in each.
        accelerator: which of them is this process's.
    """

    samples: PairSamples
    parts: Sequence[Numbers]
    accelerator: Accelerator

    @classmethod
    def of(cls, samples: PairSamples, own: Numbers, accelerator: Accelerator) -> WholeBatch:
        """From this process's part; every process has to ask."""
        parts = [own]
        if accelerator.num_processes > 1:
            everything = accelerator.gather(torch.from_numpy(own).to(accelerator.device)).cpu().numpy()
            parts = np.split(everything, accelerator.num_processes)
        return cls(samples, parts, accelerator)

    @property
    def queries(self) -> Numbers:
        """Positions of the queries among the texts."""
        return self.samples.query[np.concatenate(self.parts)]

    @property
    def documents(self) -> Numbers:
        """Of the documents: the positives in the order of their queries, then the hard negatives."""
        positives = self.samples.document[np.concatenate(self.parts)]
        return np.concatenate([positives, *(self.negatives(part) for part in self.parts)])

    def negatives(self, pairs: Numbers) -> Numbers:
        """Positions of their hard negatives among the documents, pair by pair."""
        return np.concatenate([np.empty(0, np.int64), *(self.samples.negatives[i] for i in pairs)])

    def shared(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of all queries and of all documents, in the order above.

        Gradients find their way back, once from the loss of each process: a mean over processes is due.

        Args:
            own: of this process's queries, then its positives, then its negatives, floats [·, d].
        """
        count = len(self.parts[0])
        sizes = [2 * count + len(self.negatives(part)) for part in self.parts]
        rows: Sequence[Tensor] = [own]
        if len(sizes) > 1:
            from torch.distributed.nn.functional import all_gather

            rows = all_gather(pad(own, (0, 0, 0, max(sizes) - len(own))).contiguous())  # type: ignore[no-untyped-call]
        positives = [each[count : 2 * count] for each in rows]
        negatives = [each[2 * count : size] for each, size in zip(rows, sizes, strict=True)]
        return torch.cat([each[:count] for each in rows]), torch.cat([*positives, *negatives])


def mean_gradients(network: nn.Module, accelerator: Accelerator) -> None:
    """Replace each gradient by its mean over the processes."""
    if accelerator.num_processes == 1:
        return
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    flat = torch.cat([each.reshape(-1) for each in gradients])
    torch.distributed.all_reduce(flat)
    flat /= accelerator.num_processes
    sizes = [each.numel() for each in gradients]
    for gradient, mean in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))
