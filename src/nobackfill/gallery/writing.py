"""Items as a gallery takes them: checked before anything is written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from numpy.typing import ArrayLike

from nobackfill.errors import GalleryError
from nobackfill.gallery.job import stop_any_job
from nobackfill.gallery.lineage import MANIFEST, Generation, Manifest, save_manifest
from nobackfill.gallery.stores.adopted_items import AdoptedItems
from nobackfill.gallery.stores.base import CREATING, ItemBatch, LockTakenError, Payload, Store
from nobackfill.gallery.vectors import unit_rows

Batch = tuple[Sequence[str], ArrayLike, Sequence[Payload]]
"""Ids, vectors floats [n, dim] of any norm but zero, payloads."""
LARGEST = 2**63  # integers below this fit every store


def checked_items(
    ids: Sequence[str], vectors: ArrayLike, payloads: Sequence[Payload] | None, number: int, generation: Generation
) -> ItemBatch:
    """Items of a generation; payloads are empty unless given.

    Raises:
        GalleryError: for an id that comes twice, or anything that no store could hold; nothing was written.
    """
    rows = unit_rows(vectors, generation.dim, f"vectors of {generation.name}")
    payloads = [{} for _ in ids] if payloads is None else payloads
    if len(ids) != len(rows) or len(payloads) != len(rows):
        raise GalleryError(
            f"expected an id and a payload for each of {len(rows)} vectors, found {len(ids)} ids and {len(payloads)} "
            "payloads"
        )
    check_ids(ids)
    return ItemBatch(list(ids), number, rows, list(checked_payloads(dict(zip(ids, payloads, strict=True))).values()))


def check_ids(ids: Sequence[str]) -> None:
    """Raises `GalleryError` for an id that comes twice or that is no text a store could hold."""
    for name in ids:
        if not isinstance(name, str) or not name:
            raise GalleryError(f"id {name!r}: expected text of at least one character")
        if not _storable(name):
            raise GalleryError(f"id {name!r}: not valid UTF-8, which stores require (or a NUL); rename it")
    if len(set(ids)) < len(ids):
        seen = set[str]()
        name = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise GalleryError(f"id {name!r}: comes twice; ids are unique in a gallery")


def checked_payloads(payloads: Mapping[str, Payload]) -> dict[str, Payload]:
    """Payloads by id; raises `GalleryError` for one that is not an object of JSON values."""
    checked: dict[str, Payload] = {}
    for name, payload in payloads.items():
        try:
            if not isinstance(payload, Mapping):
                raise ValueError(f"expected an object, found {type(payload).__name__}")
            text = json.dumps(dict(payload), allow_nan=False, ensure_ascii=False)
            if not _storable(text) or "\\u0000" in text:
                raise ValueError("it holds a NUL or text that is not valid UTF-8")
            checked[name] = json.loads(text, parse_int=_small_integer)
        except (TypeError, ValueError, RecursionError) as error:
            raise GalleryError(f"payload of {name!r}: {str(error)[:120]}; expected JSON values") from None
    return checked


def create_items(
    store: Store, generation: Generation, batches: Iterable[Batch], source: str | None, *, replace: bool
) -> Manifest:
    """Fill an empty store; see `Gallery.create`."""
    items = _checked(batches, generation)
    first = next(items, None)  # before anything is made
    _make(store, replace=replace)
    with store.lock():  # else another process, which may have begun it again, has it
        try:
            store.add_generation(1, generation.dim)
            for batch in itertools.chain([] if first is None else [first], items):
                store.insert(batch)
            store.compact(forget_kept=False)
            manifest = save_manifest(store, Manifest(generations=(generation,), source=source))
            store.write(CREATING, None)
        except Exception:
            store.drop()  # half a gallery is none
            raise
    return manifest


def _make(store: Store, *, replace: bool) -> None:
    """An empty store, where there is none, or only what a creation left that was cut short, or `replace` says so."""
    if isinstance(store, AdoptedItems):
        store.create()  # refuses, before anything is taken away
    if replace or (store.read(MANIFEST) is None and store.read(CREATING) is not None):
        try:
            with store.lock():
                stop_any_job(store)  # its workers hold the locks of their pieces, not this one
                store.drop()
        except LockTakenError:
            raise
        except GalleryError:
            pass  # there is nothing to replace, or nothing of ours: `create` says so
    try:
        store.create()
    except GalleryError as error:
        if store.read(MANIFEST) is None:
            raise
        raise GalleryError(f"{error}, or replace the gallery (`gallery create --replace`)") from None


def _checked(batches: Iterable[Batch], generation: Generation) -> Iterator[ItemBatch]:
    for ids, vectors, payloads in batches:
        if len(ids):
            yield checked_items(ids, vectors, payloads, 1, generation)


def _storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _small_integer(text: str) -> int:
    number = int(text)
    if abs(number) >= LARGEST:
        raise ValueError(f"{text[:30]} is too large; expected integers of 64 bits")
    return number
