"""`nobackfill gallery abandon`."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Annotated

import typer

from nobackfill.cli.gallery.options import JsonOption, StoreArgument
from nobackfill.errors import visible


def abandon(
    store: StoreArgument,
    leave_new: Annotated[
        bool,
        typer.Option("--leave-new", help="Leave the newest model's vectors for the application; remove all else."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be run.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: JsonOption = False,
) -> None:
    """Take back everything that `gallery adopt` and `gallery upgrade` made around an application's table.

    Example: `nobackfill gallery abandon postgresql://localhost/shop#items --dry-run`
    """
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery
    from nobackfill.gallery.adopting import abandon as give_back
    from nobackfill.gallery.adopting import abandon_statements

    with contextlib.closing(Gallery.open(store).store) as opened:
        url, statements = opened.url, abandon_statements(opened, leave_new=leave_new)
        if not json_:
            for statement in statements:
                typer.echo(visible(f"{statement};"))
        if not dry_run:
            if not yes and not sys.stdin.isatty():
                raise ConfigError(f"{url}: give --yes to run these statements")
            if not yes:
                typer.confirm(f"{url}: run these statements?", abort=True)
            give_back(opened, leave_new=leave_new)
    if json_:
        typer.echo(json.dumps({"statements": statements, "done": not dry_run}, indent=1))
    else:
        typer.echo(f"{url}: {'nothing was changed (--dry-run)' if dry_run else 'is no gallery any more'}")
