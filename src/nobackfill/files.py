"""Files and folders that appear whole or not at all; arrays that are read without running code in them."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

import numpy as np

from nobackfill.arrays import Array
from nobackfill.errors import DataError, RunError, one_line

TEXT_BYTES = 2**30
"""The most that is read of a file at once."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, with its ending; flushed and renamed to `path` when the block succeeds."""
    require_files([path])
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


def require_files(paths: Iterable[Path]) -> None:
    """Raises `RunError` for something that `atomic_file` would not replace: a folder, a pipe, a device."""
    for path in paths:
        if path.exists() and not path.is_file():
            raise RunError(f"{path}: cannot be written: there is something there that is no file; name another one")


def lines_of(text: str) -> list[str]:
    """The lines of a text file, which only a line feed ends (what is a line's end to Unicode may be part of an id)."""
    text = text.removeprefix("\ufeff")  # of Windows' editors
    return text.removesuffix("\n").split("\n") if text else []


def remove_database(path: Path) -> None:
    """Remove an SQLite file and what SQLite keeps beside it, and nothing that is only named alike."""
    for ending in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_npy(path: Path, array: Array) -> Path:
    """Replace a .npy file in one step; returns its path."""
    with atomic_file(path) as temporary:
        np.save(temporary, array)
    return path


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
def atomic_folder(out: Path, mode: int = 0o777) -> Iterator[Path]:
    """Yields a temporary folder beside `out`, renamed to `out` when the block succeeds, else removed.

    Args:
        out: the folder.
        mode: its permissions, less the umask.
    """
    require_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield working
        working.chmod(mode & ~_umask())
        publish_folder(working, out)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def require_regular(path: Path) -> None:
    """Raises `OSError` unless a regular file is there, or a link to one: opening a pipe or device may never end."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its path has a NUL character in it", str(path))
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise OSError(errno.EINVAL, f"expected a regular file, found {kind}", str(path))


def read_bytes(path: Path, limit: int = TEXT_BYTES) -> bytes:
    """A whole file, at most `limit` bytes; raises `OSError` for a longer one and for what is no regular file."""
    require_regular(path)
    with path.open("rb") as file:
        content = file.read(limit + 1)  # its size may be unknown (/proc) or growing
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return content


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """A whole UTF-8 file; raises `OSError` as `read_bytes`, and `UnicodeDecodeError`; line breaks become newlines."""
    return io.StringIO(read_bytes(path, limit).decode("utf-8"), newline=None).read()


def read_npy(path: Path, name: str | None = None) -> Array:
    """A .npy file, mapped copy-on-write: it may be changed in memory, the file stays; never a pickle.

    Args:
        path: the file.
        name: what to call it in messages; None: its path.

    Raises:
        DataError: if it is missing, or not one array of numbers.
    """
    try:
        require_regular(path)
        # Copy-on-write, not read-only: torch warns of arrays that it could not write to.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("it is an archive of arrays")
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    except (OSError, ValueError, EOFError, OverflowError, TypeError, MemoryError, SyntaxError, TokenError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else one_line(error, 120)
        if "pickle" in reason:
            reason = "it is no array of numbers, or holds Python objects, which are never loaded"
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
