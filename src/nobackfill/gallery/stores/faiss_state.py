"""Which files of a folder gallery count: the contents of `state.json`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from nobackfill.errors import GalleryError
from nobackfill.files import write_text
from nobackfill.gallery.formats import parse_document

Index = Literal["flat", "hnsw", "ivfpq"]
FOLDERS = ("items", "segments", "documents")
OWN = re.compile(r"\d{6,}\.(parquet|faiss)|\.\d{6,}\.\w+\.(parquet|faiss)")  # the second: of a write cut short


class Segment(BaseModel):
    """Vectors of one generation in one file.

    Attributes:
        name: of its file, without the ending.
        generation: number of the generation.
        dim: size of its vectors.
        rows: how many vectors it has.
        indexed: whether a FAISS index lies beside it.
        keeps: whether vectors whose place it took are kept for a rollback.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, StringConstraints(pattern=r"^\d{6,}$")]
    generation: int
    dim: int
    rows: int
    indexed: bool = False
    keeps: bool = False


class State(BaseModel):
    """Contents of `state.json`.

    Attributes:
        format: of this file and of those it names.
        index: what `compact` builds for a generation of many items.
        items: files of ids and payloads and how many items each has, in the order of insertion.
        segments: of two with the same item the later one counts.
        dims: generation → size of its vectors.
        last: number of the newest file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    index: Index = "flat"
    items: tuple[tuple[Annotated[str, StringConstraints(pattern=r"^\d{6,}\.parquet$")], int], ...] = ()
    segments: tuple[Segment, ...] = ()
    dims: dict[int, int] = {}
    last: int = 0


def read_state(folder: Path, url: str) -> State:
    """The present state; raises `GalleryError` if there is none, or it is damaged or of another format."""
    try:
        data = (folder / "state.json").read_bytes()
    except FileNotFoundError:
        raise GalleryError(f"{url}: no gallery there; create one with `gallery create`") from None
    refuse_links(folder, url)
    return parse_document(State, data, f"{url}: state.json")


def write_state(folder: Path, state: State) -> None:
    """Replaces the state by one rename."""
    write_text(folder / "state.json", state.model_dump_json(indent=1) + "\n")


def refuse_links(folder: Path, url: str) -> None:
    """Raises `GalleryError` if a folder of the gallery is a link: the files behind it are not the gallery's own."""
    for name in FOLDERS:
        if (folder / name).is_symlink():
            raise GalleryError(f"{url}: its folder {name!r} is a link; replace it with the folder itself")


def remove_files(folder: Path, state: State, url: str) -> None:
    """Remove items and segments that no state names any more, or that are left of a write that was cut short.

    Only files that are named as a gallery names its own; raises `GalleryError` if a folder is a link.
    """
    refuse_links(folder, url)
    named = {f"{segment.name}{suffix}" for segment in state.segments for suffix in (".parquet", ".faiss")}
    for part, names in (("segments", named), ("items", {name for name, _ in state.items})):
        for path in (folder / part).iterdir():
            if OWN.fullmatch(path.name) and path.name not in names:
                path.unlink()
