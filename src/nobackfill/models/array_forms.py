"""Two vectors side by side as one sample, and what is computed from them, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nobackfill.errors import RunError

Floats = NDArray[np.float32]
TINY = 1e-12  # norms below it count as it, as in PyTorch
PARALLEL = 2e-3  # sine of the angle below which an arc is taken as straight: float32 knows no smaller angles


def unit_rows(rows: Floats) -> Floats:
    """Rows at unit norm, [n, d]."""
    result: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
    return result


def unit_parts(rows: Floats, first: int) -> Floats:
    """Both vectors of each row at unit norm: the first `first` values, and the rest; [n, d]."""
    return np.concatenate([unit_rows(rows[:, :first]), unit_rows(rows[:, first:])], axis=1)


def slerp(start: Floats, end: Floats, alpha: float) -> Floats:
    """Spherical interpolation: sin((1 − α)θ)/sin θ · start + sin(αθ)/sin θ · end, θ the angle between them.

    Along a straight line where the two point the same way or opposite ways.

    Args:
        start: unit rows float32 [n, d].
        end: unit rows float32 [n, d].
        alpha: α, 0 (start) to 1 (end).
    """
    cosine = np.clip((start * end).sum(axis=1, keepdims=True), -1, 1)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    straight = sine < PARALLEL
    safe = np.where(straight, 1, sine)
    from_start = np.where(straight, 1 - alpha, np.sin((1 - alpha) * angle) / safe)
    from_end = np.where(straight, alpha, np.sin(alpha * angle) / safe)
    result: Floats = (from_start * start + from_end * end).astype(np.float32)
    return result


def refuse_unknown_options(form: str, options: dict[str, int | float | str], size: int, generation: str) -> None:
    """Raise `RunError` for options that do not go with a backbone of this form and input size."""
    allowed = {"in_features"} | ({"first", "alpha"} if form == "slerp" else {"first"} if "first" in options else set())
    first, alpha = options.get("first", 1), options.get("alpha", 0.0)
    sound = set(options) == allowed and options.get("in_features") == size
    if not (sound and isinstance(first, int) and 0 < first < max(size, 2) and isinstance(alpha, int | float)):
        raise RunError(f"generation {generation}: damaged: its sizes are inconsistent")
    if form not in {"relu", "slerp"} and "first" in options:
        raise RunError(f"generation {generation}: damaged: a {form} backbone takes one vector, not two side by side")
