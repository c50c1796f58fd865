"""CIFAR-100 in the layouts it is found in: hub parquet, python archive, binary archive, class folders.

Archives are read in memory, member by member under their expected names; nothing is unpacked to disk. The pickles of
the python archive pass an unpickler that admits byte strings, lists, dicts and plain number arrays, nothing else.
"""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Array
from nobackfill.cache import Arrays, cached, file_stamps
from nobackfill.data.folder import SPLIT_FOLDERS, load_folder
from nobackfill.data.preprocessing import open_image, to_rgb
from nobackfill.data.samples import ImageSamples
from nobackfill.errors import DataError
from nobackfill.untrusted import check_decoded

CLASSES = 100
PIXELS = 32 * 32 * 3
MAX_MEMBER = 2**28  # bytes; the largest true member has 155 MB
Read = Callable[[str], bytes]


def load_cifar100(root: Path, split: Literal["train", "test"]) -> ImageSamples:
    """One split as uint8 [n, 32, 32, 3] with its fine labels; `root` is a folder or a .tar.gz archive.

    Raises:
        DataError: if no known layout is found at `root` or a file in it is damaged.
    """
    if root.is_file():
        return _from_archive(root, split)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder or archive of CIFAR-100")
    parts = sorted(root.glob(f"{split}-*.parquet"))
    if parts:
        return _from_parquet(parts)
    for folder, read_layout in (("cifar-100-python", _from_python), ("cifar-100-binary", _from_binary)):
        for candidate in (root / folder, root):
            if (candidate / ("train" if read_layout is _from_python else "train.bin")).is_file():
                return read_layout(_reader(candidate), split, str(candidate))
    for name in ("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"):
        if (root / name).is_file():
            return _from_archive(root / name, split)
    if any((root / name).is_dir() for names in SPLIT_FOLDERS.values() for name in names):
        return load_folder(root, split)
    raise DataError(
        f"{root}: not CIFAR-100; expected {split}-*.parquet, cifar-100-python, cifar-100-binary (each also as "
        f".tar.gz), or class folders in {' or '.join(SPLIT_FOLDERS[split])}"
    )


def _from_parquet(parts: list[Path]) -> ImageSamples:
    arrays = cached("decoded", {"layout": "parquet", "files": file_stamps(parts)}, lambda: _decode_parquet(parts))
    return ImageSamples(arrays["images"], arrays["labels"], tuple(arrays["names"].tolist()), str(parts[0].parent))


def _decode_parquet(parts: list[Path]) -> Arrays:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images, labels, names = [], [], None
    for part in parts:
        try:
            with pq.ParquetFile(part) as file:
                check_decoded(part, file, ["img", "fine_label"])
                table = file.read(["img", "fine_label"])
            names = names or _names_in_schema(table.schema.metadata)
            encoded = [image["bytes"] for image in table.column("img").to_pylist()]
            labels.append(table.column("fine_label").to_numpy())
            if labels[-1].dtype.kind not in "iu" or not encoded:
                raise ValueError(f"fine_label holds {labels[-1].dtype}, {len(encoded)} rows")
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{part}: not a CIFAR-100 parquet file with img.bytes and fine_label: {error}") from error
        for row, data in enumerate(encoded):
            images.append(_decode(data, f"{part}: row {row}"))
    return {
        "images": np.stack(images),
        "labels": np.concatenate(labels).astype(np.int64),
        "names": np.asarray(names or [str(number) for number in range(CLASSES)]),
    }


def _names_in_schema(metadata: dict[bytes, bytes] | None) -> tuple[str, ...] | None:
    try:
        return tuple(json.loads((metadata or {})[b"huggingface"])["info"]["features"]["fine_label"]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _decode(data: bytes, origin: str) -> NDArray[np.uint8]:
    try:
        pixels = to_rgb(open_image(io.BytesIO(data)))
    except Exception as error:  # a decoder fed with a stranger's bytes may raise anything
        raise DataError(f"{origin}: not a readable image: {error}") from error
    if pixels.shape != (32, 32, 3):
        raise DataError(f"{origin}: expected an image of 32×32, found {pixels.shape[1]}×{pixels.shape[0]}")
    return pixels


def _from_archive(archive: Path, split: str) -> ImageSamples:
    try:
        with tarfile.open(archive) as tar:
            members = tar.getnames()
            for folder, read_layout in (("cifar-100-python", _from_python), ("cifar-100-binary", _from_binary)):
                if any(name.startswith(f"{folder}/") for name in members):
                    return read_layout(_tar_reader(tar, folder, archive), split, f"{archive}:{folder}")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: not a readable .tar.gz archive: {error}") from error
    raise DataError(f"{archive}: expected cifar-100-python/ or cifar-100-binary/ in it")


def _from_python(read: Read, split: str, origin: str) -> ImageSamples:
    try:
        batch = _Restricted(io.BytesIO(read(split)), encoding="bytes").load()
        meta = _Restricted(io.BytesIO(read("meta")), encoding="bytes").load()
        pixels = batch[b"data"].value
        labels = np.asarray(batch[b"fine_labels"]).astype(np.int64)
        names = tuple(name.decode() for name in meta[b"fine_label_names"])
    except DataError:
        raise
    except Exception as error:  # an unpickler fed with a stranger's bytes may raise anything
        raise DataError(f"{origin}/{split}: not a CIFAR-100 python batch: {error}") from error
    return ImageSamples(_planes_to_images(pixels, origin), labels, names, origin)


def _from_binary(read: Read, split: str, origin: str) -> ImageSamples:
    record = 2 + PIXELS  # coarse label, fine label, pixels
    data = np.frombuffer(read(f"{split}.bin"), dtype=np.uint8)
    if not len(data) or len(data) % record:
        raise DataError(f"{origin}/{split}.bin: {len(data)} bytes, expected a multiple of {record}")
    rows = data.reshape(-1, record)
    try:
        names = tuple(read("fine_label_names.txt").decode().split())
    except UnicodeDecodeError:
        raise DataError(f"{origin}/fine_label_names.txt: not UTF-8 text") from None
    return ImageSamples(_planes_to_images(rows[:, 2:], origin), rows[:, 1].astype(np.int64), names, origin)


def _planes_to_images(planes: Array, origin: str) -> NDArray[np.uint8]:
    if planes.ndim != 2 or planes.shape[1] != PIXELS or planes.dtype != np.uint8:
        raise DataError(f"{origin}: expected pixels uint8 [n, {PIXELS}], found {planes.dtype} {list(planes.shape)}")
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _reader(folder: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"{folder / name}: cannot read it: {error.strerror}") from error

    return read


def _tar_reader(tar: tarfile.TarFile, folder: str, archive: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            member = tar.getmember(f"{folder}/{name}")
        except KeyError as error:
            raise DataError(f"{archive}: no {folder}/{name} in it") from error
        file = tar.extractfile(member) if member.isfile() else None
        if file is None or member.size > MAX_MEMBER:
            raise DataError(f"{archive}: {folder}/{name} is not a plain file of at most {MAX_MEMBER >> 20} MiB")
        return file.read()

    return read


def _encode_latin1(text: str, encoding: str) -> bytes:
    # How Python 2 byte strings travel in newer pickles; any other codec could be made to do work for an attacker.
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text.encode("latin1")


class _Dtype:
    """Stands in for numpy.dtype: keeps the name, takes no state, so nothing of numpy's internals can be set."""

    def __init__(self, name: str | bytes, align: bool = False, copy: bool = False) -> None:  # noqa: ARG002
        self.name = name.decode() if isinstance(name, bytes) else name
        if self.name not in ("u1", "i4", "i8"):
            raise pickle.UnpicklingError(f"array type {self.name!r} is not allowed")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray: built from shape, type and bytes alone."""

    def __init__(self, *_: object) -> None:
        self.value: Array = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, data = state
        flat = np.frombuffer(data, dtype=np.dtype(dtype.name))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


class _Restricted(pickle.Unpickler):
    ADMITTED: ClassVar[Mapping[tuple[str, str], object]] = {
        ("_codecs", "encode"): _encode_latin1,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
    }

    def find_class(self, module: str, name: str) -> object:
        try:
            return self.ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}; only arrays and basic types are allowed") from None
