"""Exact search of a whole gallery, a block of queries at a time: what every query's matches are ranked by.

On a CPU, blocks run side by side in threads: a matrix product by NumPy's BLAS, then `counting`. Elsewhere torch sorts
the scores on the device. Memory grows with the gallery, never with queries × gallery.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from nobackfill.arrays import Floats
from nobackfill.evaluation.relevance import Relevance
from nobackfill.machine import cores
from nobackfill.progress import track

Integers = NDArray[np.int64]

BLOCK = 128  # queries at a time on a CPU: enough for the matrix product, few enough for the caches
BLOCK_VALUES = 2**24  # scores at a time on another device
NOWHERE = 2**62  # a rank behind every cut-off
LANES = 16  # the gallery is padded to a multiple of this, so that no column is a matrix product's rim
ROWS = 4096  # whose copies are looked for at a time


@dataclass(frozen=True)
class Ranks:
    """Where the matches of each query stand.

    Attributes:
        cutoffs: k of the columns of `hits` and `gain`.
        matches: int64 [n_q], R, how many there are.
        first: int64 [n_q], rank of the best from 1, tied non-matches above it; 0 without a match.
        precision: float64 [n_q], average precision of the whole ranking, tied items as one group; NaN if none.
        precision_at_r: float64 [n_q], average precision cut at rank R.
        hits: int64 [n_q, cutoffs], matches among the first k.
        gain: float64 [n_q, cutoffs], discounted cumulative gain of the first k.
    """

    cutoffs: tuple[int, ...]
    matches: NDArray[np.int64]
    first: NDArray[np.int64]
    precision: NDArray[np.float64]
    precision_at_r: NDArray[np.float64]
    hits: NDArray[np.int64]
    gain: NDArray[np.float64]


def search(
    query: Floats,
    gallery: Floats,
    relevance: Relevance,
    cutoffs: tuple[int, ...],
    *,
    own: Integers | None = None,
    device: str = "cpu",
) -> Ranks:
    """Rank by inner product, highest first.

    Args:
        query: float32 [n_q, d].
        gallery: float32 [n_g, d].
        relevance: matches of each query.
        cutoffs: k of the cut-off metrics.
        own: int64 [n_q], the gallery item that is the query itself and is left out of its ranking.
        device: where to compute: `cpu`, `cuda`, …
    """
    ranks = empty_ranks(len(query), cutoffs)
    own = np.full(len(query), -1) if own is None else own
    places = np.asarray(cutoffs, np.int64)
    if device == "cpu":
        _on_cpu(query, gallery, relevance, own, places, ranks)
    else:
        _on_device(query, gallery, relevance, own, places, ranks, device)
    return ranks


def empty_ranks(queries: int, cutoffs: tuple[int, ...]) -> Ranks:
    """Of queries without any match."""
    return Ranks(
        cutoffs=cutoffs,
        matches=np.zeros(queries, np.int64),
        first=np.zeros(queries, np.int64),
        precision=np.full(queries, np.nan),
        precision_at_r=np.full(queries, np.nan),
        hits=np.zeros((queries, len(cutoffs)), np.int64),
        gain=np.zeros((queries, len(cutoffs))),
    )


def _on_cpu(
    query: Floats, gallery: Floats, relevance: Relevance, own: Integers, places: Integers, ranks: Ranks
) -> None:
    from nobackfill.evaluation.counting import rank_matches  # its compiler takes a while to import

    n_q, n_g = len(query), len(gallery)
    threads = cores()
    transposed = _padded(gallery, -n_g % LANES).T
    copies, originals = repeated(gallery)
    buffers: SimpleQueue[Floats] = SimpleQueue()
    for _ in range(threads):
        buffers.put(np.empty((BLOCK, transposed.shape[1]), np.float32))

    def block(start: int) -> None:
        rows = slice(start, min(n_q, start + BLOCK))
        scores = buffers.get()
        # Always whole blocks: the same pair of vectors then has the same score wherever it stands.
        np.matmul(_padded(query[rows], start + BLOCK - rows.stop), transposed, out=scores)
        if len(copies):  # which some processors' matrix products score a last digit apart
            scores[:, copies] = scores[:, originals]
        rank_matches(
            scores, n_g, relevance.starts[rows], relevance.stops[rows], relevance.items, own[rows], places,
            ranks.matches[rows], ranks.first[rows], ranks.precision[rows], ranks.precision_at_r[rows],
            ranks.hits[rows], ranks.gain[rows],
        )  # fmt: skip
        buffers.put(scores)

    starts = range(0, n_q, BLOCK)
    with _one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        try:
            for _ in track(pool.map(block, starts), f"searching {n_g} items", len(starts)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def repeated(vectors: Floats) -> tuple[Integers, Integers]:
    """The vectors that occur before: their rows, and for each the row where it occurs first, both int64 [copies].

    Equal vectors have to tie exactly, and a matrix product alone does not see to it: where a column lies in it decides
    in which order its values are added.
    """
    weights = np.random.default_rng(0).integers(2**63, size=vectors.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = np.empty(len(vectors), np.uint64)
    for start in range(0, len(vectors), ROWS):
        values = np.ascontiguousarray(vectors[start : start + ROWS] + np.float32(0))  # −0 is 0
        keys[start : start + ROWS] = values.view(np.uint32).astype(np.uint64) @ weights  # modulo 2^64
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    original = first[group]
    copies = np.flatnonzero(original != np.arange(len(vectors)))
    same = np.ones(len(copies), np.bool_)
    for start in range(0, len(copies), ROWS):
        some = copies[start : start + ROWS]
        same[start : start + ROWS] = (vectors[some] == vectors[original[some]]).all(axis=1)
    return copies[same], original[copies[same]]


def _padded(rows: Floats, more: int) -> Floats:
    return np.concatenate([rows, np.zeros((more, rows.shape[1]), np.float32)]) if more else rows


def _one_blas_thread() -> AbstractContextManager[object]:
    limited: AbstractContextManager[object] = _blas().limit(limits=1, user_api="blas")
    return limited


@lru_cache(1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _on_device(
    query: Floats,
    gallery: Floats,
    relevance: Relevance,
    own: Integers,
    places: Integers,
    ranks: Ranks,
    name: str,
) -> None:
    """The same by sorting whole rankings: more work, but of the kind such a device is made for."""
    import torch  # only for devices

    device = torch.device(name)
    items = torch.from_numpy(relevance.items).to(device)
    columns = torch.from_numpy(gallery).to(device).T
    copies, originals = (torch.from_numpy(each).to(device) for each in repeated(gallery))
    cutoffs = torch.from_numpy(places).to(device)
    widest = max(1, int((relevance.stops - relevance.starts).max()))
    size = max(1, BLOCK_VALUES // max(len(gallery), widest * (1 + len(places))))
    for start in range(0, len(query), size):
        rows = slice(start, start + size)
        scores = torch.from_numpy(query[rows]).to(device) @ columns
        scores[:, copies] = scores[:, originals]
        starts, stops, selves = (
            torch.from_numpy(each[rows]).to(device)[:, None] for each in (relevance.starts, relevance.stops, own)
        )
        within = starts + torch.arange(widest, device=device)
        item = items[within.clamp(max=len(items) - 1)] if len(items) else torch.zeros_like(within)
        match = (within < stops) & (item != selves)
        matched = scores.gather(1, item.clamp(max=len(gallery) - 1)).masked_fill(~match, torch.inf)
        scores = torch.where(torch.arange(len(gallery), device=device) == selves, -torch.inf, scores)
        matched = matched.sort(1).values  # ascending, those that are none at the end
        ranking = scores.sort(1).values
        r = match.sum(1, keepdim=True)
        above = len(gallery) - torch.searchsorted(ranking, matched)
        place = r - torch.arange(widest, device=device)
        real = place > 0
        reached = r - torch.searchsorted(matched, matched)
        rank = torch.where(real, place + above - reached, NOWHERE)
        precision = torch.where(real, reached.double() / above.clamp(min=1), 0).sum(1)
        cut = torch.where(real & (rank <= r), place.double() / rank, 0).sum(1)
        early = rank[:, :, None] <= cutoffs
        gain = (early / torch.log2(1 + rank.double())[:, :, None]).sum(1)
        some = (r[:, 0] > 0).cpu().numpy()
        ranks.matches[rows] = r[:, 0].cpu().numpy()
        ranks.first[rows] = np.where(some, rank.amin(1).cpu().numpy(), 0)
        ranks.precision[rows] = np.where(some, (precision / r[:, 0]).cpu().numpy(), np.nan)
        ranks.precision_at_r[rows] = np.where(some, (cut / r[:, 0]).cpu().numpy(), np.nan)
        ranks.hits[rows] = early.sum(1).cpu().numpy()
        ranks.gain[rows] = gain.cpu().numpy()
