"""`nobackfill gallery verify`."""

from __future__ import annotations

import typer

from nobackfill.cli.gallery.options import JsonOption, StoreArgument, counted, show


def verify(store: StoreArgument, json_: JsonOption = False) -> None:
    """Check counts, dimensions, norms, generations and ids of all items; exit code 1 if anything is wrong.

    Example: `nobackfill gallery verify faiss:photos`
    """
    from nobackfill.errors import visible
    from nobackfill.gallery import Gallery

    gallery = Gallery.open(store)
    problems = gallery.verify()
    total = gallery.count()
    found = counted(len(problems), "problem") if problems else "no problems"
    for problem in [] if json_ else problems:
        typer.echo(visible(problem))
    show(json_, {"problems": problems, "items": total}, f"{gallery.store.url}: {found} in {total} items")
    if problems:
        raise typer.Exit(1)
