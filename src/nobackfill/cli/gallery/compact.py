"""`nobackfill gallery compact`."""

from __future__ import annotations

from nobackfill.cli.gallery.options import JsonOption, StoreArgument, show


def compact(store: StoreArgument, json_: JsonOption = False) -> None:
    """Free the space of replaced and kept vectors and rebuild indexes; rollback is impossible afterwards.

    Example: `nobackfill gallery compact faiss:photos`
    """
    from nobackfill.gallery import Gallery

    gallery = Gallery.open(store)
    gallery.compact()
    show(json_, {"compacted": True}, f"{gallery.store.url}: compacted")
