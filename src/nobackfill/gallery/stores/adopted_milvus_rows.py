"""Reading the application's collection of Milvus, and those that a gallery has beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nobackfill.gallery.filters import Filter, matches
from nobackfill.gallery.stores.adopted_items import unit
from nobackfill.gallery.stores.adopted_milvus_layout import (
    STAMP,
    Adoption,
    Key,
    literal,
    narrowed,
    one_of,
    stamp,
    version,
)
from nobackfill.gallery.stores.base import ItemBatch
from nobackfill.gallery.stores.milvus_connection import BATCH, MilvusConnection, Row

STRONG = "Strong"  # what was written before is seen


@dataclass(frozen=True)
class AdoptedRows:
    """Rows by key.

    Attributes:
        connection: to the collections beside the application's.
        collection: of the application.
        adoption: what was agreed.
        later: numbers of the generations after the first that have a collection.
    """

    connection: MilvusConnection
    collection: str
    adoption: Adoption
    later: tuple[int, ...]

    def own(self, keys: Sequence[Key], fields: Sequence[str]) -> dict[Key, Row]:
        """The application's rows of these keys; unknown ones are left out."""
        return self._get(self.connection.readable(self.collection), keys, fields)

    def side(self, number: int, keys: Sequence[Key], fields: Sequence[str]) -> dict[Key, Row]:
        """What a later generation has of these keys."""
        return self._get(self.connection.loaded(f"g{number}"), keys, fields)

    def pages(self, fields: Sequence[str], where: Filter | None = None, size: int = BATCH) -> Iterator[list[Row]]:
        """The application's rows that may fulfil a filter, some at a time; the caller checks them."""
        yield from self._pages(self.connection.readable(self.collection), fields, self._narrowed(where), size)

    def side_pages(self, number: int) -> Iterator[list[Key]]:
        """Keys that a later generation has, some at a time."""
        for rows in self._pages(self.connection.loaded(f"g{number}"), [self.adoption.key], "", BATCH):
            yield [row[self.adoption.key] for row in rows]

    def matching(self, where: Filter | None, size: int) -> Iterator[list[Row]]:
        """The application's rows that fulfil a filter, with their own vectors."""
        fields = [self.adoption.vector, *(self.adoption.payload_fields if where is not None else [])]
        for rows in self.pages(fields, where, size):
            yield [row for row in rows if where is None or matches(where, self.adoption.payload(row))]

    def generations(self, own: dict[Key, Row]) -> dict[Key, int]:
        """Of rows with their own vectors: the newest whose vector was made for that."""
        found = dict.fromkeys(own, 1)
        stamps: dict[Key, str] = {}
        for number in self.later:
            for key, row in self.side(number, list(own), [STAMP]).items():
                now = stamps.get(key) or stamps.setdefault(key, stamp(own[key][self.adoption.vector]))
                if row[STAMP] == now:
                    found[key] = number
        return found

    def marked(self, keys: Sequence[Key], above: int) -> set[Key]:
        """Those of these keys that have a vector of a generation above this one, made for whatever."""
        newer = (number for number in self.later if number > above)
        return {key for number in newer for key in self.side(number, keys, [self.adoption.key])}

    def numbered(self, keys: Sequence[Key]) -> dict[Key, int]:
        """The generation of each of these items; rows that are gone are left out."""
        return self.generations(self.own(keys, [self.adoption.vector]))

    def batches(self, own: dict[Key, Row], *, payloads: bool) -> Iterator[ItemBatch]:
        """Rows with their own vectors (and payloads) as items, a batch for each generation."""
        adoption, groups = self.adoption, dict[int, list[Key]]()
        for key, number in self.generations(own).items():
            groups.setdefault(number, []).append(key)
        for number, keys in sorted(groups.items()):
            rows = own if number == 1 else self.side(number, keys, [adoption.vector])
            all_norms = number > 1 or adoption.metric == "COSINE"
            there = [key for key in keys if key in rows]  # one may have been removed meanwhile
            yield ItemBatch(
                [str(key) for key in there],
                number,
                unit([rows[key][adoption.vector] for key in there], all_norms=all_norms),
                [adoption.payload(own[key]) for key in there] if payloads else [],
                [version(own[key][adoption.vector]) for key in there],
            )

    def remove(self, number: int, keys: Sequence[Key]) -> None:
        """Vectors of a later generation."""
        name = self.connection.loaded(f"g{number}")
        with self.connection.translated():
            for start in range(0, len(keys), BATCH):
                some = one_of(self.adoption.key, keys[start : start + BATCH])
                self.connection.client.delete(name, filter=some)

    def by_key(self, rows: Sequence[Row]) -> dict[Key, Row]:
        """The same."""
        return {row[self.adoption.key]: row for row in rows}

    def _narrowed(self, where: Filter | None) -> str:
        keys = self.adoption.payload_keys
        fields = self.adoption.fields
        return narrowed({name: kind for name, kind in fields.items() if keys is None or name in keys}, where)

    def _get(self, name: str, keys: Sequence[Key], fields: Sequence[str]) -> dict[Key, Row]:
        found: dict[Key, Row] = {}
        key, wanted = self.adoption.key, [self.adoption.key, *fields]
        with self.connection.translated():
            for start in range(0, len(keys), BATCH):
                some = one_of(key, keys[start : start + BATCH])
                rows = self.connection.client.query(name, filter=some, output_fields=wanted, consistency_level=STRONG)
                found |= {row[key]: dict(row) for row in rows}
        return {each: found[each] for each in keys if each in found}

    def _pages(self, name: str, fields: Sequence[str], where: str, size: int) -> Iterator[list[Row]]:
        """In order of their keys. pymilvus's own iterator breaks at a quote in a key."""
        key, last = self.adoption.key, None
        while True:
            beyond = "" if last is None else f"{key} > {literal(last)}"
            with self.connection.translated():
                rows = self.connection.client.query(
                    name,
                    filter=" and ".join(f"({each})" for each in (where, beyond) if each),
                    limit=min(size, BATCH),
                    output_fields=[key, *fields],
                    consistency_level=STRONG,
                    iterator="True",  # by key, the first ones
                    reduce_stop_for_best=True,
                )
            if not rows:
                return
            yield list(map(dict, rows))
            last = rows[-1][key]


def later_generations(connection: MilvusConnection) -> tuple[int, ...]:
    """Numbers of the generations that have a collection beside the application's, in order."""
    wanted = re.compile(re.escape(connection.collection("g")) + "([0-9]+)")
    with connection.translated():
        names = connection.client.list_collections()
    return tuple(sorted(int(match[1]) for name in names if (match := wanted.fullmatch(name))))
