"""`nobackfill gallery upgrade`."""

from __future__ import annotations

from typing import Annotated

import typer

from nobackfill.cli.gallery.options import (
    DataOption,
    IdsOption,
    JsonOption,
    NameOption,
    RunOption,
    StoreArgument,
    VectorsOption,
    require_model,
)
from nobackfill.cli.source import SplitOption, WorkersOption


def upgrade(
    store: StoreArgument,
    run: RunOption = None,
    name: NameOption = None,
    data: DataOption = None,
    split: SplitOption = "test",
    vectors: VectorsOption = None,
    ids: IdsOption = None,
    sample: Annotated[int, typer.Option(min=10, help="Number of items to measure score scale and quality on.")] = 2000,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Calibrate old and new scores to one scale, if the sample shows it helps."),
    ] = False,
    workers: WorkersOption = None,
    json_: JsonOption = False,
) -> None:
    """Add a new model: its queries work at once; stored vectors stay as they are.

    The new model embeds a sample of the items to measure the scale between old and new scores and, if the items have
    labels, the expected gain of a backfill.

    Example: `nobackfill gallery upgrade faiss:photos --run runs/digits/bt2`
    """
    from nobackfill.cli.gallery.items import curve_line, new_embedder
    from nobackfill.gallery import Gallery

    require_model(run, name)
    gallery = Gallery.open(store)
    generation, embedder = new_embedder(gallery, run, name, data, split, vectors, ids, workers)
    added = gallery.upgrade(generation, embedder, sample=sample, calibrate=calibrate)
    if json_:
        typer.echo(added.model_dump_json(indent=2))
        return
    typer.echo(f"{gallery.store.url}: queries of {added.name} now work")
    if calibrate:
        factors = gallery.manifest.calibration
        typer.echo(f"  calibration: {factors}" if factors else "  calibration: does not help; scores stay as they are")
    if added.curve is not None:
        typer.echo(f"  expected top-1, measured on {added.curve.queries} items: {curve_line(added.curve)}")
