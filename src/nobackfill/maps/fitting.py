"""From pairs of vectors to a run folder and a verdict."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nobackfill.arrays import Array
from nobackfill.errors import ConfigError, RunError, nearest
from nobackfill.evaluation.candidates import CandidateResult, candidates_verdict
from nobackfill.evaluation.verdict import Verdict
from nobackfill.files import publish_folder, require_new, write_npy, write_text
from nobackfill.maps.assessment import assess_fits, best_candidate
from nobackfill.maps.checks import checked_held, refuse_no_matches, refuse_side, refuse_unusable
from nobackfill.maps.fits import FITS, default_fits, require_for
from nobackfill.maps.lineage import note_lineage
from nobackfill.maps.moments import moments
from nobackfill.maps.pairs import Held, Integers, Pairs, Split, split_rows, unit_rows_of, without_twins
from nobackfill.maps.qdc import refuse_sizes
from nobackfill.maps.task import Candidate, Direction, Settings, Task
from nobackfill.maps.trained_fits import extra_dims
from nobackfill.models.spec import named_prefix
from nobackfill.progress import note

ROWS_FILE = "rows.npy"
ARRAYS = "arrays"  # folder for arrays that come out of other files, in that of the unfinished fit
TRAINED_ON = 200_000  # pairs at most; closed forms use all of them
FEWEST_MATCHED = 20  # validation rows with a match to choose settings by; of few rows half of them


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
    methods: Sequence[str] | None = None,
    directions: Sequence[Direction] = ("to-old", "to-new"),
    settings: Settings | None = None,
    held_fraction: float = 0.2,
    held: Held | None = None,
    seen: bool = False,
    finish: Callable[[Fitted, Path], None] | None = None,
) -> Fitted:
    """Fit every method, assess all of them on held-out items, and write the best one as a run folder.

    A fit that was killed is done again by the same call; trained methods go on where they were.

    Args:
        pairs: the same items by the old and the new model.
        out: run folder to write; the other candidates lie in its folder `methods`.
        methods: names in `FITS`; None: see `default_fits`.
        directions: `to-old` (new queries into the old space; the gallery stays) and `to-new` (the gallery is mapped).
        settings: see `Settings`.
        held_fraction: fraction of the pairs to assess by, where `held` is not given.
        held: items and queries to assess by.
        seen: whether the gallery of `held` is the pairs themselves.
        finish: writes more files, into the folder that becomes `out` then; after a kill there is no `out` without them.

    Raises:
        DataError: for arrays that do not belong together, pairs that are unusable, or too few.
        ConfigError: for an unknown method, or one that maps in none of the directions.
        MissingPackageError: for one that is trained, where PyTorch is not installed.
    """
    settings = settings or Settings()
    if methods is None:
        methods = default_fits(directions)
    for name in methods:
        if name not in FITS:
            raise ConfigError(f"--method {name!r}: unknown; {nearest(name, FITS)}")
        if not {*FITS[name].directions} & {*directions}:
            raise ConfigError(f"--direction {directions[0]}: {name} only maps {FITS[name].directions[0]}; leave it out")
    require_for(methods)
    require_new(out)
    old, new, labels = pairs.read()
    side, apart = pairs.read_side(len(old)), held is not None
    if any("extra_dims" in FITS[name].takes for name in methods):
        extra_dims(settings, new.shape[1], old.shape[1])  # refused now, not after an hour
    if "qdc" in methods:
        refuse_sizes(old.shape[1], new.shape[1])
    refuse_side(pairs, held, methods)
    split = split_rows(len(old), held_fraction, settings.seed, assessed_apart=apart)
    held = checked_held(pairs, held, split, labels)
    refuse_no_matches(held)
    working = Path(f"{out}.unfinished")
    chosen_by = _chosen_by(labels, split, pairs)
    tasks = [_task(pairs, direction, old, new, chosen_by, split, settings, working) for direction in directions]
    refuse_unusable(tasks[0], pairs, *((new, old) if tasks[0].direction == "to-old" else (old, new)), split)
    held, dropped = without_twins(held, new, np.sort(np.concatenate([split.fit, split.validation])))
    refuse_no_matches(held, dropped)
    contents = {"old": old, "new": new, "labels": labels, "side": side}
    described = {
        "pairs": {name: str(value) for name, value in pairs.__dict__.items()},
        "contents": {name: _digest(array) for name, array in contents.items() if array is not None},
        "methods": list(methods),
        "directions": list(directions),
        "settings": settings.__dict__,
        "held_fraction": None if apart else held_fraction,
    }
    _take(working, described)
    write_npy(working / ROWS_FILE, _trained_rows(split, settings))
    candidates: list[Candidate] = []
    for task in tasks:
        for name in methods:
            if task.direction in FITS[name].directions:
                candidates += FITS[name].make(task)
    note_lineage(pairs, candidates)
    results = assess_fits(held, candidates)
    best = best_candidate([one for one in candidates if one.direction in directions])
    fitted = Fitted(out, results, candidates_verdict(results), best.name, dropped, seen)
    _prepare(working, best)
    if finish is not None:
        finish(fitted, working)
    publish_folder(working, out)
    return fitted


def _chosen_by(labels: Integers | None, split: Split, pairs: Pairs) -> Integers | None:
    """The labels of the validation rows; none, and it is said, where few of them share theirs with another."""
    if labels is None:
        return None
    chosen = labels[split.validation]
    _, classes, sizes = np.unique(chosen, return_inverse=True, return_counts=True)
    matched = int((sizes[classes] > 1).sum())
    if matched >= min(FEWEST_MATCHED, len(chosen) // 2):
        return chosen
    note(
        f"{pairs.labels}: {matched} of {len(chosen)} validation pairs share their label with another, too few to "
        "choose settings by; they are chosen by the agreement with a full backfill"
    )
    return None


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
    spaces = (
        pairs.old_space or named_prefix(pairs.old_name, old.shape[1]),
        pairs.new_space or named_prefix(pairs.new_name, new.shape[1]),
    )
    side = None if to_old else pairs.read_side(len(old))
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
        labels=labels,
        prefix=spaces[0] if to_old else spaces[1],
        folder=working / "methods",
        settings=settings,
        x_space=spaces[1] if to_old else spaces[0],
        side_file=None if to_old else pairs.side,
        side=None if side is None else unit_rows_of(side, chosen, str(pairs.side)),
    )


def _trained_rows(split: Split, settings: Settings) -> Integers:
    if len(split.fit) <= TRAINED_ON:
        return split.fit
    return np.sort(np.random.default_rng([settings.seed, 3]).permutation(split.fit)[:TRAINED_ON])


def _digest(array: Array) -> str:
    """SHA-256 of an array's type and values, block by block: 2 µs a row of 768, where moments take tens."""
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    for start in range(0, len(array), 4096):
        digest.update(array[start : start + 4096].tobytes())
    return digest.hexdigest()


def _take(working: Path, described: Mapping[str, object]) -> None:
    """Make the folder of an unfinished fit, or resume the same fit in the one that is there."""
    text = json.dumps(described, indent=2) + "\n"
    if working.is_dir() and any(file.name != ARRAYS for file in working.iterdir()):
        before = working / "fit.json"
        if not before.is_file() or before.read_text(encoding="utf-8") != text:
            raise RunError(f"{working}: contains an unfinished fit with other settings, or other files; remove it")
    working.mkdir(parents=True, exist_ok=True)
    write_text(working / "fit.json", text)


def _prepare(working: Path, best: Candidate) -> None:
    """The best way's run folder becomes the whole one's."""
    for file in best.folder.iterdir():
        if file.is_file():
            shutil.copy2(file, working / file.name)
    (working / ROWS_FILE).unlink()
    shutil.rmtree(working / ARRAYS, ignore_errors=True)
