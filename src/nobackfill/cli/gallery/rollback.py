"""`nobackfill gallery rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from nobackfill.cli.gallery.options import StoreArgument


def rollback(
    store: StoreArgument, to: Annotated[str, typer.Option("--to", help="Name of the generation.", show_default=False)]
) -> None:
    """Return to an older generation whose vectors were kept (`backfill --keep-old`).

    Example: `nobackfill gallery rollback faiss:photos --to independent-0123456789ab`
    """
    from nobackfill.gallery import Gallery

    gallery = Gallery.open(store)
    gallery.rollback(to)
    typer.echo(f"{gallery.store.url}: rolled back to {to}, {gallery.status().total} items")
