"""Embeddings as they are compared: checked, cut to the common prefix, of unit norm, in float32."""

from __future__ import annotations

from numpy.typing import ArrayLike

from nobackfill.arrays import Floats, as_table, unit


def unit_prefixes(query: ArrayLike, gallery: ArrayLike) -> tuple[Floats, Floats]:
    """Both as unit vectors of their first min(d_q, d_g) values, float32 [n, dim]. One array given twice is read once.

    Raises:
        DataError: for empty or misshapen input, values that are not finite, and vectors of norm zero (which rows).
    """
    arrays = {"query": as_table(query, "query"), "gallery": as_table(gallery, "gallery")}
    dim = min(array.shape[1] for array in arrays.values())
    first = unit(arrays["query"], "query", dim)
    return first, first if query is gallery else unit(arrays["gallery"], "gallery", dim)
