"""Folders of SentenceTransformer models: what is in one, whether it is safe to open, its fingerprint, its lineage.

Nothing here imports sentence-transformers or PyTorch: a folder is judged before anything in it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar, Literal

import pydantic
from pydantic import BaseModel, ConfigDict

from nobackfill.config import explain
from nobackfill.errors import RunError, one_line
from nobackfill.files import write_text
from nobackfill.models.spec import OlderSpace

MODULES, SETTINGS, LINEAGE = "modules.json", "config_sentence_transformers.json", "nobackfill.json"
PACKAGE = "sentence_transformers."
READ = {".json", ".txt", ".model", ".safetensors", ".jinja"}
"""Endings of files that can decide what a vector is; model cards, other formats of the weights and logs do not."""
IGNORED = {MODULES, SETTINGS, LINEAGE, "trainer_state.json"}
VOLATILE = {"__version__", "transformers_version", "_name_or_path", "name_or_path", "similarity_fn_name"}
"""Keys that tell who wrote a file, where, or how vectors are compared, and not what they are."""
LONGEST_HEADER = 2**27  # bytes of a safetensors header, far above any real one


class Lineage(BaseModel):
    """Contents of `nobackfill.json`: the older models with whose vectors those of this folder's model compare.

    Attributes:
        fingerprint: of the folder when it was written; a model trained further is another one.
        prefixes: the older models, newest first.
        exported: the run whose vectors the folder gives, if it was exported from one: both are one generation.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    fingerprint: str
    prefixes: tuple[OlderSpace, ...]
    exported: OlderSpace | None = None


def check_sentence_folder(folder: Path) -> None:
    """Raise `RunError` unless this is a SentenceTransformer folder that needs no code of its own and no pickle."""
    for kind, place in modules_of(folder):
        if not kind.startswith(PACKAGE):
            raise RunError(
                f"{folder}: its module {kind!r} is not part of sentence-transformers: it would run code of its own"
            )
        files = list(_files(place, recursive=place != folder))
        for file in files:
            content = _json(file) if file.suffix == ".json" else None
            if isinstance(content, dict):
                _refuse_code(content, file)
        pickled = [*place.glob("*.bin")]
        if pickled and not any(file.suffix == ".safetensors" for file in files):
            raise RunError(f"{pickled[0]}: pickled weights are not read; save the model again as safetensors")


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over what decides the vectors: weights, tokenizer, settings of each module (pooling …) and prompts.

    It is the same on every machine and for every version of the libraries. Weights count by name, type and values; JSON
    by its content.

    Raises:
        RunError: for a folder that is not whole.
    """
    digest = hashlib.sha256()
    settings = folder / SETTINGS
    digest.update(_canonical(settings) if settings.is_file() else b"{}")
    for kind, place in modules_of(folder):
        digest.update(f"\nmodule {kind.rpartition('.')[2]}\n".encode())
        for file in _files(place, recursive=place != folder):
            digest.update(f"\nfile {file.relative_to(place).as_posix()}\n".encode())
            if file.suffix == ".safetensors":
                _add_weights(digest.update, file)
            else:
                digest.update(_canonical(file) if file.suffix == ".json" else file.read_bytes())
    return digest.hexdigest()


def read_lineage(folder: Path, fingerprint: str) -> Lineage:
    """What a folder of this fingerprint says of its lineage; nothing without a `nobackfill.json`.

    Raises:
        RunError: if that file is damaged, or was written for other weights.
    """
    path = folder / LINEAGE
    if not path.is_file():
        return Lineage(fingerprint=fingerprint, prefixes=())
    try:
        lineage = Lineage.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise RunError(f"{path}: damaged: {explain(error, Lineage)}") from error
    if lineage.fingerprint != fingerprint:
        raise RunError(f"{path}: written for another model: the folder changed since; write its lineage again")
    return lineage


def write_lineage(folder: str | Path, prefixes: tuple[OlderSpace, ...], exported: OlderSpace | None = None) -> None:
    """Record that the first values of a folder's vectors compare with these older models, newest first.

    With `exported`, that its vectors are those of this run.
    """
    folder = Path(folder)
    lineage = Lineage(fingerprint=folder_fingerprint(folder), prefixes=prefixes, exported=exported)
    write_text(folder / LINEAGE, lineage.model_dump_json(indent=2) + "\n")


def modules_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Class and folder of each module, in their order; raises `RunError` if the folder does not say them."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; expected a local SentenceTransformer folder (nothing is downloaded)")
    if not (folder / MODULES).is_file():
        raise RunError(f"{folder}: not a SentenceTransformer folder: {MODULES} is missing")
    listed = _json(folder / MODULES)
    if not isinstance(listed, list) or not listed:
        raise RunError(f"{folder / MODULES}: damaged: expected a list of modules")
    for entry in listed:
        kind, path = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(path, str):
            raise RunError(f"{folder / MODULES}: damaged: expected a type and a path for each module")
        inside, linked = PurePosixPath(path), not (folder / path).resolve().is_relative_to(folder.resolve())
        if linked or inside.is_absolute() or ".." in inside.parts or "\\" in path:
            raise RunError(f"{folder / MODULES}: the path {path!r} leaves the folder")
        yield kind, folder / path


def _files(place: Path, *, recursive: bool) -> list[Path]:
    """Files of a module that count, in order; other modules' folders are not the root's."""
    found = place.rglob("*") if recursive else place.glob("*")
    return sorted(file for file in found if file.suffix in READ and file.name not in IGNORED and file.is_file())


def _json(file: Path) -> object:
    try:
        tree: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file}: damaged: cannot be read as JSON: {one_line(error)}") from error
    return tree


def _refuse_code(content: Mapping[str, object], file: Path) -> None:
    if "auto_map" in content:
        raise RunError(f"{file}: this model wants to run code of its own (auto_map), which is refused")
    activation = content.get("activation_function", "torch.")
    if not isinstance(activation, str) or not activation.startswith("torch."):
        raise RunError(f"{file}: the activation {activation!r} is not one of PyTorch's: it would run code of its own")


def _canonical(file: Path) -> bytes:
    content = _json(file)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key not in VOLATILE}
    return json.dumps(content, sort_keys=True).encode()


def _add_weights(add: Callable[[bytes], None], file: Path) -> None:
    """Tensors by name, whatever their order in the file and its metadata.

    Read by hand since NumPy knows no bfloat16: a safetensors file is a length (8 bytes), a JSON header and the values.
    """
    with file.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        if length > LONGEST_HEADER:
            raise RunError(f"{file}: damaged, not readable as safetensors")
        try:
            header = json.loads(source.read(length))
            header.pop("__metadata__", None)
            tensors = [(name, header[name]["dtype"], header[name]["shape"], header[name]["data_offsets"])
                       for name in sorted(header)]  # fmt: skip
            for name, dtype, shape, (start, end) in tensors:
                add(f"\n{name} {dtype} {shape}\n".encode())
                source.seek(8 + length + start)
                _add_bytes(add, source, end - start)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise RunError(f"{file}: damaged, not readable as safetensors: {one_line(error)}") from error


def _add_bytes(add: Callable[[bytes], None], source: BinaryIO, count: int) -> None:
    while count > 0:
        block = source.read(min(count, 2**24))
        if not block:
            raise ValueError("it ends early")
        add(block)
        count -= len(block)
