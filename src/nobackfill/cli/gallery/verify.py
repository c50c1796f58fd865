"""`nobackfill gallery verify`."""

from __future__ import annotations

import typer

from nobackfill.cli.gallery.options import StoreArgument


def verify(store: StoreArgument) -> None:
    """Check counts, dimensions, norms, generations and ids of all items; exit code 1 if anything is wrong.

    Example: `nobackfill gallery verify faiss:photos`
    """
    from nobackfill.gallery import Gallery

    gallery = Gallery.open(store)
    problems = gallery.verify()
    for problem in problems:
        typer.echo(problem)
    noun = "problem" if len(problems) == 1 else "problems"
    typer.echo(f"{gallery.store.url}: {len(problems) or 'no'} {noun} in {gallery.status().total} items")
    if problems:
        raise typer.Exit(1)
