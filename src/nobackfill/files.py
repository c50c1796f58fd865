"""Files and folders that appear whole or not at all; arrays that are read without running code in them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nobackfill.arrays import Array
from nobackfill.errors import DataError, RunError, one_line


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, with its ending; flushed and renamed to `path` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_new(out: Path) -> None:
    """Raises `RunError` unless `out` is absent or an empty folder."""
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out}: this output folder exists and is not empty; choose another --out or remove it")
    if out.is_symlink() or out.resolve() == Path.cwd():
        raise RunError(f"{out}: cannot be replaced by a new folder (a link, or the working directory); choose another")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: expected a folder to write to, found a file")


def publish_folder(working: Path, out: Path) -> None:
    """Rename a finished working folder to its final place; `out` may be an empty folder."""
    for file in working.iterdir():
        _flush(file)
    working.rename(out)
    _flush(out.parent)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `out`, renamed to `out` when the block succeeds, else removed."""
    require_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield working
        working.chmod(0o777 & ~_umask())
        publish_folder(working, out)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def read_npy(path: Path, name: str | None = None) -> Array:
    """A .npy file, mapped copy-on-write: it may be changed in memory, the file stays; never a pickle.

    Args:
        path: the file.
        name: what to call it in messages; None: its path.

    Raises:
        DataError: if it is missing, or not one array of numbers.
    """
    try:
        # Copy-on-write, not read-only: torch warns of arrays that it could not write to.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("it is an archive of arrays")
        return array
    except (OSError, ValueError, EOFError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else one_line(error, 120)
        raise DataError(f"{name or path}: cannot be read as a .npy array: {reason}") from error


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
