"""`nobackfill gallery delete`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.gallery.options import (
    JsonOption,
    ScopeOption,
    StoreArgument,
    counted,
    read_lines,
    read_scope,
    show,
)
from nobackfill.errors import ConfigError


def delete(
    store: StoreArgument,
    item: Annotated[list[str] | None, typer.Argument(help="Ids.", show_default=False)] = None,
    ids: Annotated[Path | None, typer.Option("--ids", help="Text file, one id per line.")] = None,
    scope: ScopeOption = None,
    json_: JsonOption = False,
) -> None:
    """Remove items with their vectors, payloads and hits.

    Example: `nobackfill gallery delete faiss:photos photo-17.png`
    """
    from nobackfill.gallery import Gallery

    names = list(item or []) + (read_lines(ids, "--ids") if ids else [])
    if not names:
        raise ConfigError("give ids of items, or --ids with a text file, one id per line")
    gallery = Gallery.open(store, scope=read_scope(scope))
    removed = gallery.delete(names)
    text = f"{gallery.store.url}: {counted(removed, 'item')} removed, {len(names) - removed} not there"
    show(json_, {"removed": removed, "missing": len(names) - removed}, text)
