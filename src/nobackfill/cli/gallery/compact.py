"""`nobackfill gallery compact`."""

from __future__ import annotations

import typer

from nobackfill.cli.gallery.options import StoreArgument


def compact(store: StoreArgument) -> None:
    """Free the space of replaced and kept vectors and rebuild indexes; rollback is impossible afterwards.

    Example: `nobackfill gallery compact faiss:photos`
    """
    from nobackfill.gallery import Gallery

    gallery = Gallery.open(store)
    gallery.compact()
    typer.echo(f"{gallery.store.url}: compacted")
