"""`nobackfill gallery backfill`."""

from __future__ import annotations

from typing import Annotated

import typer

from nobackfill.cli.gallery.options import (
    DataOption,
    IdsOption,
    NameOption,
    RunOption,
    StoreArgument,
    VectorsOption,
    budget_of,
    require_model,
)
from nobackfill.cli.source import RayOption, SplitOption, WorkersOption


def backfill(
    store: StoreArgument,
    run: RunOption = None,
    name: NameOption = None,
    data: DataOption = None,
    split: SplitOption = "test",
    vectors: VectorsOption = None,
    ids: IdsOption = None,
    budget: Annotated[
        str | None, typer.Option(help="A fraction of the gallery (0.25) or a number of items (10000).")
    ] = None,
    order: Annotated[
        str, typer.Option(help="Which items first: random, oldest, isolated, dense or popular.")
    ] = "random",
    batch_size: Annotated[int, typer.Option(min=1, help="Items per transaction.")] = 256,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Keep the old vectors, so that a rollback is possible.")
    ] = False,
    ray: RayOption = None,
    workers: WorkersOption = None,
) -> None:
    """Re-embed items with the newest model and replace their vectors, batch by batch.

    You can stop or kill it at any time; the same command resumes it. Items that are missing or do not decode keep
    their old vectors and are listed; the exit code is then 3.

    Example: `nobackfill gallery backfill faiss:photos --run runs/digits/bt2 --budget 0.25`
    """
    from nobackfill.cli.gallery.items import new_embedder
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery
    from nobackfill.gallery.orders import ORDERS

    require_model(run, name)
    if order not in ORDERS:
        raise ConfigError(f"--order {order!r}: expected {', '.join(ORDERS)}")
    limit = budget_of(budget)
    gallery = Gallery.open(store)
    _, embedder = new_embedder(gallery, run, name, data, split, vectors, ids, workers, ray)
    job = gallery.backfill(embedder, budget=limit, order=order, batch_size=batch_size, keep_old=keep_old)
    status = gallery.status()
    noun = "item" if job.replaced == 1 else "items"
    typer.echo(
        f"{gallery.store.url}: {job.replaced} {noun} replaced in {job.seconds:.1f} s; "
        f"{status.items[-1]} of {status.total} now embedded by {status.newest.name}"
    )
    for item, reason in job.errors.items():
        typer.echo(f"old vector kept: {item}: {reason}", err=True)
    if job.errors:
        raise typer.Exit(3)
