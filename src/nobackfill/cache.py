"""Arrays that are costly to compute, kept between runs in a cache folder: whole or absent, memory-mapped, private.

The folder is `$NOBACKFILL_CACHE`, by default the user's cache folder. It may be deleted at any time. What is kept there
is trusted as if it had been computed, so only folders and files of the user's own are read, with the contents they
were written with; nobody else can read them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock

from nobackfill.arrays import Array
from nobackfill.errors import DataError
from nobackfill.files import atomic_folder, read_npy, read_text, write_text

Key = Mapping[str, object]
Arrays = dict[str, Array]
ENTRY = "entry.json"
ENTRY_BYTES = 2**24
FOLDER_MODE, FILE_MODE = 0o700, 0o600


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

    Raises:
        DataError: if others can change what is in the cache folder.
    """
    folder = _place(kind, key)
    _make_private(folder.parent)
    with FileLock(f"{folder}.lock", mode=FILE_MODE):
        arrays = _open(folder, key)
        if arrays is None:
            made = build()
            for leftover in folder.parent.glob(f".{folder.name}.*"):  # of a builder that was killed
                shutil.rmtree(leftover)
            _remove(folder)  # damaged
            with atomic_folder(folder, FOLDER_MODE) as working:
                for name, array in made.items():
                    np.save(working / f"{name}.npy", array)
                described = {name: _described(np.asarray(array)) for name, array in made.items()}
                write_text(working / ENTRY, json.dumps({"key": key, "arrays": described}, indent=2) + "\n")
                for path in working.iterdir():
                    path.chmod(FILE_MODE)
            arrays = _open(folder, key)
    if arrays is None:
        raise OSError(None, "cannot be read back; set NOBACKFILL_CACHE to a folder on a disk that works", str(folder))
    return arrays


def is_cached(kind: str, key: Key) -> bool:
    """Whether the arrays of this key are there."""
    folder = _place(kind, key)
    return folder.parent.is_dir() and _own(folder.parent) and _open(folder, key) is not None


def file_stamps(paths: list[Path]) -> list[list[str | int]]:
    """What tells a changed file, for a key: full path, size in bytes, time of the last change in nanoseconds."""
    return [[str(path.resolve()), (status := path.stat()).st_size, status.st_mtime_ns] for path in paths]


def _place(kind: str, key: Key) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / kind / digest[:32]


def _open(folder: Path, key: Key) -> Arrays | None:
    """The arrays that were written for this key; None if they are not there, not the user's own, or have changed."""
    entry = folder / ENTRY
    if not all(_own(path) for path in (folder, entry)):
        return None
    try:
        noted = json.loads(read_text(entry, ENTRY_BYTES))
        if noted["key"] != json.loads(json.dumps(key)):
            return None
        arrays: Arrays = {}
        for name, described in noted["arrays"].items():
            path = folder / f"{name}.npy"
            if path.parent != folder or not _own(path):
                return None
            arrays[name] = np.asarray(read_npy(path))
            if _described(arrays[name]) != described:
                return None
    except (DataError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return arrays


def _described(array: Array) -> dict[str, object]:
    """Type, shape and SHA-256 of an array, as JSON values."""
    digest = hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": digest.hexdigest()}


def _make_private(folder: Path) -> None:
    """Make the folder of a kind, for this user only; raises `DataError` if it belongs to another."""
    root = folder.parent
    root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if not _own(folder):
        raise DataError(
            f"{folder}: belongs to another user, or is a link, so what it keeps cannot be trusted; "
            "set NOBACKFILL_CACHE to a folder of your own"
        )
    mode = root.stat().st_mode
    if os.name == "posix" and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise DataError(
            f"{root}: every user can replace what it keeps (mode {stat.S_IMODE(mode):04o}); take away that right with "
            "`chmod o-w`, or set NOBACKFILL_CACHE to a folder of your own"
        )
    if folder.stat().st_mode & 0o077:
        folder.chmod(FOLDER_MODE)


def _own(path: Path) -> bool:
    """Whether a file or folder is this user's own, and not a link."""
    try:
        status = path.lstat()
    except OSError:
        return False
    mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return mine and not stat.S_ISLNK(status.st_mode)


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
