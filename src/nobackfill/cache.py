"""Arrays that are costly to compute, kept between runs in a cache folder: whole or absent, memory-mapped.

The folder is `$NOBACKFILL_CACHE`, by default the user's cache folder. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock

from nobackfill.arrays import Array
from nobackfill.errors import DataError
from nobackfill.files import atomic_folder, read_npy, write_text

Key = Mapping[str, object]
Arrays = dict[str, Array]


def cache_folder() -> Path:
    """Where kept arrays live."""
    chosen = os.environ.get("NOBACKFILL_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("nobackfill", appauthor=False)


def cached(kind: str, key: Key, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of this key: opened if they are there, else built once and kept.

    Processes that want the same arrays at once wait for the first of them to build them.

    Args:
        kind: folder within the cache.
        key: all that the arrays depend on, as JSON values.
        build: computes them, by name.

    Returns:
        Arrays mapped to their files copy-on-write: they may be changed in memory, the files stay.
    """
    folder = _place(kind, key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        arrays = _open(folder)
        if arrays is None:
            made = build()
            for leftover in folder.parent.glob(f".{folder.name}.*"):  # of a builder that was killed
                shutil.rmtree(leftover)
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            with atomic_folder(folder) as working:
                for name, array in made.items():
                    np.save(working / f"{name}.npy", array)
                write_text(working / "key.json", json.dumps(key, indent=2) + "\n")
            arrays = _open(folder)
    if arrays is None:
        raise OSError(None, "cannot be read back; set NOBACKFILL_CACHE to a folder on a disk that works", str(folder))
    return arrays


def is_cached(kind: str, key: Key) -> bool:
    """Whether the arrays of this key are there."""
    return _open(_place(kind, key)) is not None


def file_stamps(paths: list[Path]) -> list[list[str | int]]:
    """What tells a changed file, for a key: full path, size in bytes, time of the last change in nanoseconds."""
    return [[str(path.resolve()), (status := path.stat()).st_size, status.st_mtime_ns] for path in paths]


def _place(kind: str, key: Key) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / kind / digest[:32]


def _open(folder: Path) -> Arrays | None:
    if not (folder / "key.json").is_file():
        return None
    try:
        return {path.stem: np.asarray(read_npy(path)) for path in sorted(folder.glob("*.npy"))}
    except DataError:
        return None
