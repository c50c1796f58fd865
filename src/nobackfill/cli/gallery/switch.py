"""`nobackfill gallery switch`."""

from __future__ import annotations

from typing import Annotated

import typer

from nobackfill.cli.gallery.options import JsonOption, StoreArgument, show


def switch(
    store: StoreArgument,
    leave_old: Annotated[
        bool,
        typer.Option("--leave-old", help="Switch though items are still old; these are not found until backfilled."),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Serve the newest model only: queries of older models are refused from then on. `rollback` undoes it.

    Example: `nobackfill gallery switch faiss:photos`
    """
    from nobackfill.gallery import Gallery

    gallery = Gallery.open(store)
    gallery.switch(leave_old=leave_old)
    name = gallery.manifest.generations[-1].name
    show(json_, {"serves": name}, f"{gallery.store.url}: serves {name} only; older queries are refused")
