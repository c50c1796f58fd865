"""Ways to compare two embeddings, each as an inner product: what the search ranks by.

`cosine`: of the first min(d_q, d_g) values of both. `l2`: minus the squared Euclidean distance of the same values, not
normalised. −‖q − g‖² ranks the items of a query as q·g − ‖g‖²/2 does, an inner product of [q, 1] and [g, −‖g‖²/2]: so
there is no n × n array of distances.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nobackfill.arrays import ROWS, Array, Floats, unit
from nobackfill.errors import ConfigError, DataError
from nobackfill.evaluation.vectors import as_table

Distance = Literal["cosine", "l2"]
SAMPLE = 10_000  # rows that the middle is taken from
DISTANCES: tuple[Distance, ...] = get_args(Distance)


def check_distance(name: str) -> Distance:
    """A name in `DISTANCES`; else `ConfigError`."""
    for distance in DISTANCES:
        if name == distance:
            return distance
    raise ConfigError(f"distance {name!r}: expected one of {', '.join(DISTANCES)}")


def comparable(query: ArrayLike, gallery: ArrayLike, distance: Distance = "cosine") -> tuple[Floats, Floats]:
    """Both as float32 rows whose inner product ranks the gallery, from their first min(d_q, d_g) values.

    Args:
        query: floats [n_q, d_q].
        gallery: floats [n_g, d_g]. One array given twice is read once.
        distance: `cosine` or `l2`.

    Raises:
        DataError: for empty or misshapen input, values that are not finite, and (cosine) vectors of norm zero.
        ConfigError: for another distance.
    """
    arrays = {"query": as_table(query, "query"), "gallery": as_table(gallery, "gallery")}
    dim = min(array.shape[1] for array in arrays.values())
    first = rows_for(distance, arrays["query"], "query", dim)
    return inner_form(
        distance, first, first if query is gallery else rows_for(distance, arrays["gallery"], "gallery", dim)
    )


def rows_for(distance: Distance, array: Array, name: str, dim: int | None = None) -> Floats:
    """The first `dim` values of each row, float32 [n, dim]: of unit norm for `cosine`, as they are for `l2`."""
    if check_distance(distance) == "cosine":
        return unit(array, name, dim)
    dim = array.shape[1] if dim is None else dim
    result = np.empty((len(array), dim), np.float32)
    for start in range(0, len(array), ROWS):
        with np.errstate(over="ignore"):
            result[start : start + ROWS] = array[start : start + ROWS, :dim]
        bad = np.flatnonzero(~np.isfinite(result[start : start + ROWS]).all(axis=1))
        if len(bad):
            raise DataError(f"{name}: row {start + bad[0]} holds a value that is not finite in float32")
    return result


def inner_form(distance: Distance, query: Floats, gallery: Floats) -> tuple[Floats, Floats]:
    """Rows of `rows_for` as rows whose inner product ranks each query's items: [n, dim], or [n, dim + 1] for `l2`."""
    if distance == "cosine":
        return query, gallery
    # Distances do not change with a shift, and their order does not with a scale. A shift towards the middle saves
    # float32's digits. Both are by powers of two, so that values on a grid, and with them ties, stay exact.
    largest = max(float(np.abs(rows).max()) for rows in (query, gallery))
    scale = 2.0 ** -np.ceil(np.log2(largest)) if largest > 0 else 1.0
    mean, deviation = _moments(gallery)
    step = 2.0 ** np.floor(np.log2(deviation)) if deviation > 0 else largest / 2**20 or 1.0
    shift = np.round(mean / step) * step
    return _widened(query, shift, scale, norms=False), _widened(gallery, shift, scale, norms=True)


def _moments(rows: Floats) -> tuple[NDArray[np.float64], float]:
    """Mean of each column and the root of the mean variance, of some rows: any shift is right, this one is near."""
    sample = rows[:: max(1, len(rows) // SAMPLE)].astype(np.float64)
    return sample.mean(axis=0), float(np.sqrt(sample.var(axis=0).mean()))


def _widened(rows: Floats, shift: NDArray[np.float64], scale: float, *, norms: bool) -> Floats:
    """Shifted, scaled rows with −‖row‖²/2, or 1, behind them."""
    result = np.empty((len(rows), rows.shape[1] + 1), np.float32)
    for start in range(0, len(rows), ROWS):
        block = (rows[start : start + ROWS] - shift) * scale
        result[start : start + ROWS, :-1] = block
        result[start : start + ROWS, -1] = -np.einsum("ij,ij->i", block, block) / 2 if norms else 1
    return result
