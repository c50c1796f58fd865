"""What is wrong with the pairs of a fit, or with what is held out, said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nobackfill.arrays import Array, Floats
from nobackfill.errors import ConfigError, DataError
from nobackfill.evaluation.neighbours import unrelated
from nobackfill.evaluation.retrieval import matches
from nobackfill.maps.linear import LinearMap, ridge
from nobackfill.maps.moments import Moments, moments
from nobackfill.maps.pairs import Held, Integers, Pairs, Split, unit_rows_of
from nobackfill.maps.task import Task

ALIKE = 1e-4  # variance of unit vectors below which they all point the same way
FEW = 50  # validation rows: of fewer, weak but true pairs are not told from noise
FOLDS = 5


def refuse_side(pairs: Pairs, held: Held | None, methods: Sequence[str]) -> None:
    """Raise `ConfigError` for side vectors that nothing uses, or that are missing where the maps are assessed."""
    if pairs.side is None:
        return
    if "fct" not in methods:
        raise ConfigError("--side: only fct takes side vectors; add --method fct, or leave --side out")
    if held is not None and held.side is None:
        raise ConfigError("--side: the held-out items need their side vectors too; give --test-side")


def checked_held(pairs: Pairs, held: Held | None, split: Split, labels: Integers | None) -> Held:
    """What to assess by, whatever is wrong with it found before minutes pass."""
    if held is None:
        old, new, _ = pairs.read()
        side, rows = pairs.read_side(len(old)), split.held
        for array, path in ((old, pairs.old), (new, pairs.new), (side, pairs.side)):
            if array is not None:
                unit_rows_of(array, rows, str(path))
        beside = None if side is None else np.asarray(side[rows])
        return Held.of(np.asarray(old[rows]), np.asarray(new[rows]), None if labels is None else labels[rows], beside)
    for array, name in (
        (held.old_gallery, "old gallery"), (held.new_gallery, "new gallery"),
        (held.old_query, "old queries"), (held.new_query, "new queries"), (held.side, "side"),
    ):  # fmt: skip
        if array is not None:
            unit_rows_of(array, slice(None), f"held-out {name}")
    return held


def refuse_no_matches(held: Held, dropped: int = 0) -> None:
    """Raise `DataError` where labels or relevance are no such thing, or give no query a match.

    Args:
        held: what to assess by.
        dropped: queries that were left out of it.
    """
    if held.labels is None and held.relevant is None:
        return
    queries, items = held.labels or (None, None)
    relevance = matches(queries, items, held.relevant, len(held.new_query), len(held.new_gallery))
    if relevance.any(exclude_self=held.exclude_self).any():
        return
    rest = f" once the {dropped} queries among the fitted pairs are left out" if dropped else ""
    if held.labels is None:
        raise DataError(
            f"relevant: no query has a relevant item in the gallery{rest}, so no search can be judged by it; expected "
            "at least one for one query"
        )
    raise DataError(
        f"labels: no held-out item shares its label with another{rest}, so no search can be judged by them; hold more "
        "out, or leave the labels out"
    )


def refuse_unusable(task: Task, pairs: Pairs, x: Array, y: Array, split: Split) -> None:
    """Raise `DataError` for vectors of one direction, and for pairs that a map finds no better than chance.

    Args:
        task: in one direction.
        pairs: for messages.
        x: its whole file of vectors to map.
        y: that of their counterparts.
        split: of their rows.
    """
    for path, variance in ((task.x_file, _variance_x(task.moments)), (task.y_file, _variance_y(task.y))):
        if variance < ALIKE:
            raise DataError(f"{path}: unusable: all rows have the same direction")
    side = "old" if task.direction == "to-old" else "new"
    reason = unrelated(_mapped(ridge(task.moments, [0.1])[0], task.x), task.y, side)
    if reason and len(task.x) < FEW:
        reason = unrelated(*_mapped_by_others(task, x, y, split), side)
    if reason:
        raise DataError(
            f"{pairs.old} and {pairs.new}: unusable as pairs: a map fitted on them {reason}: not the same items in the "
            "same order, or noise"
        )


def _mapped_by_others(task: Task, x: Array, y: Array, split: Split) -> tuple[Floats, Floats]:
    """All rows that are not held out, each mapped by what the others taught, and their counterparts."""
    rows, names = np.sort(np.concatenate([split.fit, split.validation])), (str(task.x_file), str(task.y_file))
    mapped = np.empty((len(rows), y.shape[1]), np.float32)
    for fold in range(FOLDS):
        own = np.arange(len(rows)) % FOLDS == fold
        trial = ridge(moments(x, y, rows[~own], names), [0.1])[0]
        mapped[own] = _mapped(trial, unit_rows_of(x, rows[own], names[0]))
    return mapped, unit_rows_of(y, rows, names[1])


def _mapped(trial: LinearMap, rows: Floats) -> Floats:
    mapped: Floats = (rows @ trial.weight.T + trial.bias).astype(np.float32)
    return mapped


def _variance_x(pairs: Moments) -> float:
    return float(np.trace(pairs.centred()[0]))


def _variance_y(rows: Floats) -> float:
    return float(rows.astype(np.float64).var(axis=0).sum())
