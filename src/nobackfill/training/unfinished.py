"""The folder of an unfinished run: locked by one process, started or resumed, then published by one rename."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nobackfill.config import ImageData, RunConfig, dump_config, load_config
from nobackfill.errors import ConfigError, NobackfillError, RunError
from nobackfill.files import publish_folder, write_text
from nobackfill.models.runfolder import is_run, read_record
from nobackfill.training.checkpoint import newest
from nobackfill.training.listing import NAMES, present_listing
from nobackfill.training.plan import RunPlan
from nobackfill.training.resolving import resolve
from nobackfill.training.stopping import StoppedError

LOCK, FAILURE, METRICS, DATA = "lock", "failure.txt", "metrics.json", "data.json"
TEACHERS = "teachers.json"  # `RunPlan.digests`
PATIENCE = 10  # seconds: workers of a process that was killed hold its lock until they notice


class DoneElsewhereError(Exception):
    """Another process has finished this run while this one waited for its lock."""


def check_same_data(working: Path, digests: Mapping[str, object]) -> None:
    """Note what a run works on, or raise `RunError` if it was begun on something else.

    Args:
        working: folder of the unfinished run.
        digests: of what is there now, by its name in words.
    """
    path = working / DATA
    if not path.is_file():
        write_text(path, json.dumps(digests, indent=2) + "\n")
        return
    before = read_record(path)
    changed = [
        f"{name} ({before.get(name)}, now {value})" for name, value in digests.items() if before.get(name) != value
    ]
    if changed:
        raise RunError(
            f"{working}: was started with other data or on another machine: {', '.join(changed)}; a run can only be "
            "resumed as it was started"
        )


def unfinished(out: Path) -> Path:
    """Where a run lives until it is done."""
    return Path(f"{out}.unfinished")


def check_same_run(run: Path, plan: RunPlan) -> None:
    """Raises `RunError` if a folder holds a run of another config (naming the keys) or against other teachers."""
    if (run / "config.yaml").is_file():
        before, now = (_flat(each.model_dump()) for each in (_config_of(run), plan.config))
        changed = sorted(key for key in before | now if before.get(key) != now.get(key))
        if changed:
            raise RunError(
                f"{run}: its config differs in {', '.join(map(repr, changed))}; a run can be resumed or reused only "
                "with the same config; choose another --out or remove it"
            )
    if (run / TEACHERS).is_file() and (known := read_record(run / TEACHERS)) != plan.digests:
        others = sorted(key for key in known | dict(plan.digests) if known.get(key) != plan.digests.get(key))
        raise RunError(
            f"{run}: was trained with other teachers or data than the present ones: {', '.join(others)}; remove it"
        )


def check_same_finished_run(run: Path, plan: RunPlan) -> None:
    """As `check_same_run`, of a finished run; raises `RunError` too if the images are not those it was trained on.

    Data of other kinds are files, whose digests `check_same_run` compares. Older runs have no `data.json`.
    """
    check_same_run(run, plan)
    if not isinstance(plan.config.data, ImageData) or not (run / DATA).is_file():
        return
    known = read_record(run / DATA).get(NAMES)
    if known != (now := present_listing(plan.config.data)):
        raise RunError(
            f"{run}: was trained on other images than are there now ({NAMES} {known}, now {now}); restore the images, "
            "choose another --out, or remove it to train it again"
        )


@contextmanager
def working_folder(out: Path, plan: RunPlan, *, resume: bool) -> Iterator[Path]:
    """The run's folder, locked, its config and teachers on record; what failed is noted in it.

    A run that failed before it had a checkpoint leaves nothing behind. The lock dies with the process.

    Raises:
        RunError: if an unfinished run is there and `resume` is not set, or it is another run, or in use.
    """
    working = unfinished(out)
    if working.exists() and not resume:
        raise RunError(f"{working}: contains an unfinished run; resume it with --resume, or remove it")
    (check_same_finished_run if is_trained(working) else check_same_run)(working, plan)
    made = [folder for folder in working.parents if not folder.exists()]
    working.mkdir(parents=True, exist_ok=True)
    lock = _locked(working, out, PATIENCE if resume else 0)
    try:
        (working / FAILURE).unlink(missing_ok=True)
        for leftover in working.rglob(".*"):  # of writing that was cut short
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        write_text(working / "config.yaml", dump_config(plan.config))
        write_text(working / TEACHERS, json.dumps(dict(plan.digests), indent=2) + "\n")
        yield working
    except StoppedError:
        raise
    except NobackfillError as error:
        if newest(working / "checkpoint") is None:  # nothing in it to go on from
            shutil.rmtree(working)
            with contextlib.suppress(OSError):  # not empty: another run lives there by now
                for folder in made:
                    folder.rmdir()
        else:
            write_text(working / FAILURE, f"{error}\n")
        raise
    finally:
        lock.release()


def _locked(working: Path, out: Path, patience: float) -> FileLock:
    """The lock of a run, taken; raises `RunError` if another process has it, `DoneElsewhereError` if it is done."""
    lock = FileLock(working / LOCK)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise RunError(f"{working}: another process is training this run") from None
    except FileNotFoundError:  # renamed while we waited
        raise DoneElsewhereError from None
    if is_run(out):  # finished by another process after we looked
        lock.release()
        (working / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: somebody else's
            working.rmdir()
        raise DoneElsewhereError
    return lock


def is_trained(working: Path) -> bool:
    """Whether all is written and only the last rename is missing: `metrics.json` is written last."""
    return (working / METRICS).is_file()


def publish(working: Path, out: Path) -> None:
    """Drop what only an unfinished run needs and rename the folder to `out`."""
    shutil.rmtree(working / "checkpoint", ignore_errors=True)
    publish_folder(working, out)
    (out / LOCK).unlink(missing_ok=True)  # not before: whoever waits for it must not find the folder free


def _config_of(run: Path) -> RunConfig:
    """As it was written: fully resolved, but for keys that came later, and with keys that are refused since."""
    config = load_config(run / "config.yaml")
    try:
        return resolve(config)
    except ConfigError:
        return config


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
