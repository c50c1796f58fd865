"""`nobackfill gallery rollback`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nobackfill.cli.gallery.options import JsonOption, StoreArgument, show
from nobackfill.errors import ConfigError, visible


def rollback(
    store: StoreArgument,
    to: Annotated[str, typer.Option("--to", help="Name of the generation.", show_default=False)],
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Remove newer models from the lineage; their queries are then refused."),
    ] = False,
    leave_new: Annotated[
        bool, typer.Option("--leave-new", help="Items without a kept vector keep their newer one.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: JsonOption = False,
) -> None:
    """Put back the kept vectors of an older model. Newer models stay known and can be backfilled again.

    Example: `nobackfill gallery rollback faiss:photos --to independent-0123456789ab --yes`
    """
    from nobackfill.gallery import Gallery

    if forget and leave_new:
        raise ConfigError("give --forget or --leave-new, not both: vectors that stay would be of a forgotten model")
    gallery = Gallery.open(store)
    names = [one.name for one in gallery.manifest.generations]
    newer = names[names.index(to) + 1 :] if to in names else []
    fate = "are forgotten: their queries are refused" if forget else "stay known: their queries go on"
    question = f"{gallery.store.url}: put back vectors of {to}; newer models ({', '.join(newer) or 'none'}) {fate}"
    if to in names and not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"{question}; give --yes to do so")
        typer.confirm(visible(f"{question}?"), abort=True)
    gallery.rollback(to, forget=forget, leave_new=leave_new)
    status = gallery.status()
    items = {one.name: count for one, count in zip(status.generations, status.items, strict=True)}
    show(json_, {"to": to, "items": items}, f"{gallery.store.url}: rolled back to {to}, {status.total} items")
