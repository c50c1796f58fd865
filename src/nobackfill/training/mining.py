"""Hard negatives of pairs, mined by the old model: what it would answer, and should not.

With in-batch negatives alone nearly every document is easy to tell from the right one. The old model's own mistakes are
the documents that the new queries meet in the old gallery.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from nobackfill.config import MineConfig
from nobackfill.data import PairSamples

QUERIES = 1024  # pairs at a time
Numbers = NDArray[np.int64]


def with_mined(
    samples: PairSamples, queries: Tensor, documents: Tensor, settings: MineConfig, device: torch.device
) -> tuple[PairSamples, dict[str, int]]:
    """Pairs with the mined negatives beside those they have, and what `metrics.json` says of them.

    Those of a pair are the documents nearest to its query, of all training documents, that do not answer it (neither
    themselves nor by their group) and whose cosine is at least `margin` below that of its own document: NV-Retriever's
    TopK-MarginPos (arXiv 2407.15831). A text is one document, so none comes twice. There may be fewer than asked for.

    Args:
        samples: all training pairs.
        queries: old vectors of `samples.queries`, floats [q, d_o].
        documents: of `samples.documents`, [m, d_o].
        settings: how many, and the margin.
        device: where to compare.
    """
    answering = samples.relevant()
    table = normalize(documents.to(device).float())
    count = min(settings.negatives, len(table))
    mined: list[Numbers] = []
    for start in range(0, len(samples), QUERIES):
        query, own = (side[start : start + QUERIES] for side in (samples.query, samples.document))
        scores = normalize(queries[torch.from_numpy(query)].to(device).float()) @ table.T
        highest = scores.gather(1, torch.from_numpy(own).to(device)[:, None]) - settings.margin
        scores.masked_fill_(scores > highest, -torch.inf)
        rows = np.repeat(np.arange(len(query)), [len(answering[each]) for each in query])
        columns = np.concatenate([answering[each] for each in query])
        scores[torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)] = -torch.inf
        best, places = scores.topk(count, dim=1)
        there, numbers = best.isfinite().cpu().numpy(), places.cpu().numpy()
        mined += [line[some] for line, some in zip(numbers, there, strict=True)]
    negatives = tuple(
        np.union1d(given, more).astype(np.int64) for given, more in zip(samples.negatives, mined, strict=True)
    )
    said = {"negatives": sum(map(len, mined)), "pairs_without": sum(not len(each) for each in mined)}
    return replace(samples, negatives=negatives), said
