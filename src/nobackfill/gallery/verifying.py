"""Checking every item of a gallery in bounded memory: ids are sorted in pieces on disk and merged."""

from __future__ import annotations

import heapq
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import Manifest, load_manifest
from nobackfill.gallery.stores.base import ItemBatch, Store

NORM_TOLERANCE = 1e-3  # half precision in a store moves a norm by less
PAGE = 4096  # items at a time
PIECE = 250_000  # ids sorted in memory


def verify_store(store: Store) -> list[str]:
    """See `Gallery.verify`. Holds one page of vectors and `PIECE` ids in memory; the other ids go to a temporary file.

    That is besides what the store itself holds: the FAISS folder has all ids in memory while it is open.
    """
    manifest = load_manifest(store)
    problems: list[str] = []
    scanned: dict[int, int] = {}
    before = store.counts()
    with _SortedIds() as ids:
        for items in store.scan(PAGE):
            scanned[items.generation] = scanned.get(items.generation, 0) + len(items.ids)
            ids.add(items.ids)
            problems += _faults(items, manifest)
        problems += [f"duplicate item {name!r}" for name in ids.repeated()]
    if store.counts() != before:
        raise GalleryError(f"{store.url}: items were replaced during the check; verify after the backfill")
    if scanned != before:
        problems.append(f"the store counts {before} items by generation, a scan counts {scanned}")
    return problems


def _faults(items: ItemBatch, manifest: Manifest) -> list[str]:
    """What is wrong with some items of one generation."""
    if not 1 <= items.generation <= manifest.newest:
        count = "1 item" if len(items.ids) == 1 else f"{len(items.ids)} items"
        return [f"{count} of generation {items.generation}, which the manifest lacks"]
    dim = manifest.generations[items.generation - 1].dim
    if items.vectors.shape[1] != dim:
        return [f"generation {items.generation}: vectors have {items.vectors.shape[1]} values, expected {dim}"]
    norms = np.linalg.norm(items.vectors, axis=1)
    return [
        f"item {items.ids[row]!r}: its vector has norm {norms[row]:.4f}, expected 1"
        for row in np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE)).tolist()
    ]


class _SortedIds:
    """Ids that are added a page at a time and read back in order, of which at most `PIECE` are in memory."""

    def __enter__(self) -> _SortedIds:
        self._folder = tempfile.TemporaryDirectory(prefix="nobackfill-")
        self._pieces: list[Path] = []
        self._held: list[str] = []
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, ids: list[str]) -> None:
        """Some more ids; a piece goes to disk when there are enough."""
        self._held += map(json.dumps, ids)  # of JSON, for an id may hold a line feed
        if len(self._held) >= PIECE:
            path = Path(self._folder.name, str(len(self._pieces)))
            path.write_text("\n".join(sorted(self._held)) + "\n", encoding="ascii")
            self._pieces.append(path)
            self._held = []

    def repeated(self) -> Iterator[str]:
        """Ids that were added more than once, each once, in order."""
        files = [_lines(path) for path in self._pieces]
        for name, group in itertools.groupby(heapq.merge(sorted(self._held), *files)):
            if len(list(group)) > 1:
                yield str(json.loads(name))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="ascii") as lines:
        yield from (line.rstrip("\n") for line in lines)
