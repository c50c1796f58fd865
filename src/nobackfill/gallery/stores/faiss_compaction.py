"""Which vectors of a folder gallery are worth keeping when its segments are written anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nobackfill.gallery.stores.base import Floats
from nobackfill.gallery.stores.faiss_files import read_segment, segment_numbers, write_segment
from nobackfill.gallery.stores.faiss_state import Segment, State

INDEXED = 1000  # rows from which an approximate index is worth building


def wanted_items(folder: Path, state: State, count: int, *, forget_kept: bool) -> dict[int, NDArray[np.bool_]]:
    """For each generation which of the gallery's `count` items need their vector of it, bool [count].

    Those whose newest vector it is, and (unless kept ones are forgotten) those whose vector was to be kept when a newer
    one took its place.
    """
    newest = np.zeros(count, np.int32)
    wanted = {number: np.zeros(count, np.bool_) for number in {segment.generation for segment in state.segments}}
    for segment in state.segments:
        numbers = segment_numbers(folder, segment)
        if segment.keeps and not forget_kept:
            before = newest[numbers]
            for older in np.unique(before[(before > 0) & (before < segment.generation)]).tolist():
                wanted[older][numbers[before == older]] = True
        newest[numbers] = segment.generation
    return {number: items | (newest == number) for number, items in wanted.items()}


def compacted(folder: Path, state: State, count: int, *, forget_kept: bool) -> State:
    """Write one segment a generation with what is wanted of it; the old files stay until the new state is written."""
    segments, last = [], state.last
    wanted = wanted_items(folder, state, count, forget_kept=forget_kept)
    for number in sorted(wanted):
        if not wanted[number].any():
            continue
        numbers, vectors = _rows(folder, [one for one in state.segments if one.generation == number], wanted[number])
        last += 1
        index = state.index if len(numbers) >= INDEXED else "flat"
        segment = Segment(
            name=f"{last:06d}", generation=number, dim=vectors.shape[1], rows=len(numbers), keeps=not forget_kept
        )
        segments.append(write_segment(folder, segment, numbers, vectors, index))
    return state.model_copy(update={"segments": tuple(segments), "last": last})


def _rows(folder: Path, segments: list[Segment], wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Floats]:
    """Numbers, ascending, and vectors of the wanted items; of one item's vectors the latest."""
    parts = []
    for segment in segments:
        numbers, vectors = read_segment(folder, segment)
        chosen = wanted[numbers]
        parts.append((numbers, vectors) if chosen.all() else (numbers[chosen], vectors[chosen]))
    numbers = np.concatenate([numbers for numbers, _ in parts])
    vectors = np.concatenate([vectors for _, vectors in parts])
    ascending, from_end = np.unique(numbers[::-1], return_index=True)
    return ascending, vectors[len(numbers) - 1 - from_end]
