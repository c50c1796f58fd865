"""From pairs of vectors to a run folder and a verdict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Array
from nobackfill.errors import ConfigError, DataError, RunError, nearest
from nobackfill.evaluation.candidates import CandidateResult, candidates_verdict
from nobackfill.evaluation.verdict import Verdict
from nobackfill.files import atomic_file, publish_folder, require_new, write_text
from nobackfill.maps.assessment import assess_fits, best_candidate, unrelated
from nobackfill.maps.fits import DEFAULT_FITS, FITS, Candidate, Direction, Settings, Task, extra_dims, require_for
from nobackfill.maps.linear import ridge
from nobackfill.maps.moments import Moments, moments
from nobackfill.maps.pairs import Held, Integers, Pairs, Split, split_rows, unit_rows_of, without_twins
from nobackfill.models.spec import named_prefix

ROWS_FILE = "rows.npy"
ARRAYS = "arrays"  # folder for arrays that come out of other files, in that of the unfinished fit
TRAINED_ON = 200_000  # pairs at most; closed forms use all of them
ALIKE = 1e-4  # variance of unit vectors below which they all point the same way


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

    Attributes:
        run: the run folder: of the way that did best on the validation rows, one to the old space if there is one.
        results: status quo and full backfill first.
        verdict: what to do.
        best: name of the method in `run`.
        dropped: held-out queries that were left out since they stand among the fitted pairs.
        seen: whether the gallery that is searched was fitted on.
    """

    run: Path
    results: list[CandidateResult]
    verdict: Verdict
    best: str
    dropped: int
    seen: bool


def fit(
    pairs: Pairs,
    out: Path,
    *,
    methods: Sequence[str] = DEFAULT_FITS,
    directions: Sequence[Direction] = ("to-old", "to-new"),
    settings: Settings | None = None,
    held_fraction: float = 0.2,
    held: Held | None = None,
    seen: bool = False,
) -> Fitted:
    """Fit every method, assess all of them on held-out items, and write the best one as a run folder.

    A fit that was killed is done again by the same call; trained methods go on where they were.

    Args:
        pairs: the same items by the old and the new model.
        out: run folder to write; the other candidates lie in its folder `methods`.
        methods: names in `FITS`.
        directions: `to-old` (new queries into the old space; the gallery stays) and `to-new` (the gallery is mapped).
        settings: see `Settings`.
        held_fraction: fraction of the pairs to assess by, where `held` is not given.
        held: items and queries to assess by.
        seen: whether the gallery of `held` is the pairs themselves.

    Raises:
        DataError: for arrays that do not belong together, pairs that are unusable, or too few.
        ConfigError: for an unknown method.
        MissingPackageError: for one that is trained, where PyTorch is not installed.
    """
    settings = settings or Settings()
    for name in methods:
        if name not in FITS:
            raise ConfigError(f"--method {name!r}: unknown; {nearest(name, FITS)}")
    require_for(methods)
    if not any(direction in FITS[name][1] for name in methods for direction in directions):
        raise ConfigError(f"--direction {directions[0]}: {', '.join(methods)} cannot map in this direction")
    require_new(out)
    old, new, labels = pairs.read()
    extra_dims(settings, new.shape[1], old.shape[1])  # refused now, not after an hour
    split = split_rows(len(old), held_fraction, settings.seed, assessed_apart=held is not None)
    if held is None:
        rows = split.held
        for array, path in ((old, pairs.old), (new, pairs.new)):
            unit_rows_of(array, rows, str(path))  # whatever is wrong with them, before minutes pass
        held = Held.of(np.asarray(old[rows]), np.asarray(new[rows]), None if labels is None else labels[rows])
    else:
        for array, name in (
            (held.old_gallery, "old gallery"), (held.new_gallery, "new gallery"),
            (held.old_query, "old queries"), (held.new_query, "new queries"),
        ):  # fmt: skip
            unit_rows_of(array, slice(None), f"held-out {name}")
    working = Path(f"{out}.unfinished")
    tasks = [_task(pairs, direction, old, new, labels, split, settings, working) for direction in directions]
    _refuse_unusable(tasks[0], pairs)
    held, dropped = without_twins(held, new, np.sort(np.concatenate([split.fit, split.validation])))
    _take(working, pairs, methods, directions, settings, held_fraction)
    with atomic_file(working / ROWS_FILE) as temporary:
        np.save(temporary, _trained_rows(split, settings))
    candidates: list[Candidate] = []
    for task in tasks:
        for name in methods:
            if task.direction in FITS[name][1]:
                candidates += FITS[name][0](task)
    results = assess_fits(held, candidates)
    best = best_candidate(candidates)
    _publish(working, out, best)
    return Fitted(out, results, candidates_verdict(results), best.name, dropped, seen)


def _task(
    pairs: Pairs,
    direction: Direction,
    old: Array,
    new: Array,
    labels: Integers | None,
    split: Split,
    settings: Settings,
    working: Path,
) -> Task:
    to_old = direction == "to-old"
    x, y = (new, old) if to_old else (old, new)
    files = (pairs.new, pairs.old) if to_old else (pairs.old, pairs.new)
    names = (str(files[0]), str(files[1]))
    fitted, chosen = moments(x, y, split.fit, names), split.validation
    name, space = (pairs.old_name, pairs.old_space) if to_old else (pairs.new_name, pairs.new_space)
    prefix = space or named_prefix(name, y.shape[1])
    return Task(
        direction=direction,
        x_file=files[0],
        y_file=files[1],
        labels_file=pairs.labels,
        rows_file=working / ROWS_FILE,
        rows=min(len(split.fit), TRAINED_ON),
        moments=fitted,
        all_moments=fitted + moments(x, y, chosen, names),
        x=unit_rows_of(x, chosen, names[0]),
        y=unit_rows_of(y, chosen, names[1]),
        labels=None if labels is None else labels[chosen],
        prefix=prefix,
        folder=working / "methods",
        settings=settings,
    )


def _trained_rows(split: Split, settings: Settings) -> Integers:
    if len(split.fit) <= TRAINED_ON:
        return split.fit
    return np.sort(np.random.default_rng([settings.seed, 3]).permutation(split.fit)[:TRAINED_ON])


def _refuse_unusable(task: Task, pairs: Pairs) -> None:
    files = f"{pairs.old} and {pairs.new}"
    for path, variance in ((task.x_file, _variance_x(task.moments)), (task.y_file, _variance_y(task.y))):
        if variance < ALIKE:
            raise DataError(f"{path}: unusable: all rows have the same direction")
    trial = ridge(task.moments, [0.1])[0]
    reason = unrelated((task.x @ trial.weight.T + trial.bias).astype(np.float32), task.y)
    if reason:
        raise DataError(f"{files}: unusable as pairs: {reason}")


def _variance_x(pairs: Moments) -> float:
    return float(np.trace(pairs.centred()[0]))


def _variance_y(rows: NDArray[np.float32]) -> float:
    return float(rows.astype(np.float64).var(axis=0).sum())


def _take(
    working: Path,
    pairs: Pairs,
    methods: Sequence[str],
    directions: Sequence[Direction],
    settings: Settings,
    held_fraction: float,
) -> None:
    """Make the folder of an unfinished fit, or resume the same fit in the one that is there."""
    described = {
        "pairs": {name: str(value) for name, value in pairs.__dict__.items()},
        "methods": list(methods),
        "directions": list(directions),
        "settings": json.loads(json.dumps(settings.__dict__)),
        "held_fraction": held_fraction,
    }
    text = json.dumps(described, indent=2) + "\n"
    if working.is_dir() and any(file.name != ARRAYS for file in working.iterdir()):
        before = working / "fit.json"
        if not before.is_file() or before.read_text(encoding="utf-8") != text:
            raise RunError(f"{working}: contains an unfinished fit with other settings, or other files; remove it")
    working.mkdir(parents=True, exist_ok=True)
    write_text(working / "fit.json", text)


def _publish(working: Path, out: Path, best: Candidate) -> None:
    """The best way's run folder becomes the whole one's."""
    for file in best.folder.iterdir():
        if file.is_file():
            shutil.copy2(file, working / file.name)
    (working / ROWS_FILE).unlink()
    shutil.rmtree(working / ARRAYS, ignore_errors=True)
    publish_folder(working, out)
