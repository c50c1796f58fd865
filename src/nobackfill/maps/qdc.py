"""`qdc`: query drift compensation. Subtracts from every new query the mean drift between the two models.

Made for a model that was fine-tuned from the old one and shares its space; it turns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nobackfill.errors import ConfigError
from nobackfill.maps.folders import map_encoder
from nobackfill.maps.linear import LinearMap
from nobackfill.maps.moments import Moments
from nobackfill.maps.task import Candidate, Task, kept


def refuse_sizes(old_dim: int, new_dim: int) -> None:
    """Raise `ConfigError` where there is no drift to subtract."""
    if old_dim != new_dim:
        raise ConfigError(
            f"--method qdc: the models have {old_dim} and {new_dim} values; it needs two of one size, the new one "
            "fine-tuned from the old one; use procrustes"
        )


def fit_qdc(task: Task) -> Iterator[Candidate]:
    """Nothing to choose."""
    score = task.score(map_encoder("qdc", drift(task.moments), task.prefix))
    fitted = drift(task.all_moments)
    yield kept(task, "qdc", map_encoder("qdc", fitted, task.prefix), fitted.choice, score)


def drift(pairs: Moments) -> LinearMap:
    """The map x ↦ x − E[x − y], from moments of new and old vectors (x, y)."""
    return LinearMap(np.eye(len(pairs.mean_x)), pairs.mean_y - pairs.mean_x, "mean drift subtracted")
