"""`slerp`: the query lies on the arc between its old vector and its new one, rotated into the old space.

The old model must go on embedding queries, beside the new one. The gallery stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nobackfill.arrays import Floats
from nobackfill.maps import budget
from nobackfill.maps.linear import LinearMap, procrustes
from nobackfill.maps.task import Candidate, Task, kept
from nobackfill.models import Architecture, ArrayEncoder, OlderSpace


def fit_slerp(task: Task) -> Iterator[Candidate]:
    """α by retrieval on the validation rows."""
    trial = procrustes(task.moments, centred=False)
    both = np.concatenate([task.y, task.x], axis=1)
    scores = [task.score_of(slerp_encoder(trial, alpha, task.prefix).encode(both)) for alpha in budget.ALPHAS]
    alpha = budget.ALPHAS[int(np.argmax(scores))]
    encoder = slerp_encoder(procrustes(task.all_moments, centred=False), alpha, task.prefix)
    yield kept(task, "slerp", encoder, f"alpha {alpha:g}", max(scores), "old + new")


def slerp_encoder(rotation: LinearMap, alpha: float, prefix: OlderSpace) -> ArrayEncoder:
    """[old ; new] ↦ slerp(old, R·new; α), each brought to unit norm.

    Args:
        rotation: R, the orthogonal Procrustes map of new vectors [d] to old ones [d_o].
        alpha: 0 is the old query alone, 1 the rotated new one alone.
        prefix: the old generation.
    """
    old_dim, new_dim = rotation.weight.shape
    architecture = Architecture(
        backbone="vectors/slerp",
        backbone_options={"in_features": old_dim + new_dim, "first": old_dim, "alpha": float(alpha)},
        head="unit",
        head_options={"dim": old_dim},
    )
    weight: Floats = np.ascontiguousarray(rotation.weight, np.float32)
    return ArrayEncoder.finished("slerp", architecture, {"backbone.rotation.weight": weight}, prefix)
