"""`procrustes` and `ridge`: closed forms that need nothing but moments of the pairs."""

from __future__ import annotations

from collections.abc import Iterator

from nobackfill.maps.folders import map_encoder
from nobackfill.maps.linear import procrustes, ridge
from nobackfill.maps.task import Candidate, Task, kept


def fit_procrustes(task: Task) -> Iterator[Candidate]:
    """Centred or not, whichever searches better."""
    maps = [procrustes(task.moments, centred=centred) for centred in (True, False)]
    scores = [task.score(map_encoder("procrustes", one, task.prefix)) for one in maps]
    best = procrustes(task.all_moments, centred=scores[0] >= scores[1])
    yield kept(task, "procrustes", map_encoder("procrustes", best, task.prefix), best.choice, max(scores))


def fit_ridge(task: Task) -> Iterator[Candidate]:
    """Least squares; the penalty by retrieval."""
    score = task.score(map_encoder("ridge", task.ridge, task.prefix))
    best = ridge(task.all_moments, [task.best_penalty])[0]
    yield kept(task, "ridge", map_encoder("ridge", best, task.prefix), best.choice, score)
