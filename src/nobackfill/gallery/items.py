"""The items of a gallery: added, changed, removed, counted and searched at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import Manifest, load_manifest
from nobackfill.gallery.scope import checked_scope, inside, scope_filter, stamped
from nobackfill.gallery.searching import Hit, search_store, served
from nobackfill.gallery.status import GalleryStatus, status_of
from nobackfill.gallery.stores.base import Payload, Store
from nobackfill.gallery.writing import check_ids, checked_items, checked_payloads

Where = str | Mapping[str, object]
"""A filter, as `nobackfill.gallery.filters` describes it."""


class GalleryItems:
    """What a gallery does with single items.

    Attributes:
        store: where the vectors are.
        manifest: the lineage, as it was when it was last read or written here.
        scope: payload values of the items that every verb is held to; empty: all items.
    """

    def __init__(self, store: Store, manifest: Manifest, scope: Mapping[str, object] | None = None) -> None:
        self.store, self.manifest, self.scope = store, manifest, checked_scope(scope)

    def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        payloads: Sequence[Payload] | None = None,
        *,
        fingerprint: str,
    ) -> None:
        """Add items, or replace them whole: all of them at one moment.

        Args:
            ids: of the items, each once.
            vectors: theirs, floats [n, dim] of any norm but zero.
            payloads: what else is known of each; None: nothing.
            fingerprint: of the model that made the vectors. Items of an older generation are found at once and taken by
                the next backfill (an unfinished one of everything, too). They are refused if the newest one does not
                compare with that generation, and there are no other items of it.

        Raises:
            GalleryError: for a model that is not of the lineage or no longer served, an id that comes twice or belongs
                to another scope, or a vector or payload that is not usable. Nothing was written then.
        """
        manifest = load_manifest(self.store)
        number = served(manifest, fingerprint, self.store.url)
        if not manifest.comparable(number, manifest.newest) and not self.store.counts().get(number):
            name, newest = manifest.name(number), manifest.name(manifest.newest)
            raise GalleryError(
                f"{self.store.url}: {newest} does not compare with vectors of {name}: embed with {newest}"
            )
        items = checked_items(ids, vectors, payloads, number, manifest.generations[number - 1])
        items = replace(
            items, payloads=[stamped(self.scope, *each) for each in zip(items.ids, items.payloads, strict=True)]
        )
        if self.scope:
            there = self.store.payloads(items.ids)
            foreign = sorted(set(there) - set(inside(self.scope, there)))
            if foreign:
                raise GalleryError(f"{self.store.url}: id {foreign[0]!r} is taken outside {self.scope}; choose another")
        if items.ids:
            self.store.upsert(items)
            self._still_there(number, manifest, items.ids)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items with all that is known of them; returns how many were there."""
        return self.store.delete(self._own(ids))

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        """Replace what else is known of items, by id; returns how many were there."""
        checked = {name: stamped(self.scope, name, each) for name, each in checked_payloads(payloads).items()}
        own = self._own(list(checked))
        return self.store.set_payloads({name: checked[name] for name in own}) if own else 0

    def count(self, where: Where | None = None) -> int:
        """How many items there are, or how many fulfil a filter."""
        return sum(self.store.counts(scope_filter(self.scope, where)).values())

    def search(
        self,
        queries: ArrayLike,
        k: int,
        fingerprint: str,
        *,
        where: Where | None = None,
        remember: bool = False,
    ) -> list[list[Hit]]:
        """The best k items for each query, of whatever generation their vectors are.

        Args:
            queries: floats [n, dim] of the model with this fingerprint.
            k: results wanted.
            fingerprint: of the model that made the queries.
            where: what the payload of each result fulfils, such as `{"lang": "en", "year": {">=": 2020}}`.
            remember: count the results, for `backfill(order="popular")`.

        Raises:
            GalleryError: for queries of an unknown model, misshapen or not finite, or a filter of another form.
        """
        return search_store(
            self.store, queries, k, fingerprint, remember=remember, where=scope_filter(self.scope, where)
        )

    def status(self) -> GalleryStatus:
        """Items by generation, a backfill's progress (errors of items in the scope only), the expected quality."""
        return status_of(self.store, self.scope)

    def _still_there(self, number: int, manifest: Manifest, ids: list[str]) -> None:
        """Removes items just written and raises `GalleryError` if their generation was forgotten meanwhile."""
        written, now = manifest.generations[number - 1], load_manifest(self.store).generations
        if [generation.fingerprint for generation in now[number - 1 : number]] != [written.fingerprint]:
            self.store.delete(ids)
            raise GalleryError(
                f"{self.store.url}: {written.name} was forgotten while these items were written, so they were removed; "
                "upsert them again with vectors of a model that is served"
            )

    def _own(self, ids: Sequence[str]) -> list[str]:
        """Those of these items that this gallery is held to."""
        check_ids(ids)
        return inside(self.scope, self.store.payloads(list(ids))) if self.scope else list(ids)

    def _whole(self, verb: str) -> None:
        """Raises `GalleryError` for what concerns all items, if this gallery is held to some."""
        if self.scope:
            raise GalleryError(f"{self.store.url}: {verb} concerns all items; open the gallery without a scope")
