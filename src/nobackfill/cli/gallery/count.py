"""`nobackfill gallery count`."""

from __future__ import annotations

from nobackfill.cli.gallery.options import (
    JsonOption,
    ScopeOption,
    StoreArgument,
    WhereOption,
    counted,
    read_scope,
    show,
)


def count(
    store: StoreArgument, where: WhereOption = None, scope: ScopeOption = None, json_: JsonOption = False
) -> None:
    """Count items, or those that fulfil a filter.

    Example: `nobackfill gallery count faiss:photos --where '{"class": "red"}'`
    """
    from nobackfill.gallery import Gallery

    gallery = Gallery.open(store, scope=read_scope(scope))
    number = gallery.count(where)
    show(json_, {"count": number}, f"{gallery.store.url}: {counted(number, 'item')}")
