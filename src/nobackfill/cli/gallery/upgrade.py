"""`nobackfill gallery upgrade`."""

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
    sample: Annotated[int, typer.Option(min=10, help="Items on which scale and expected quality are measured.")] = 2000,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Bring old and new scores to one scale, if the sample shows it helps.")
    ] = False,
    workers: WorkersOption = None,
) -> None:
    """Add a new model's generation: its queries work at once, and no vector is touched.

    A sample of the items is embedded by the new model to measure the scale between old and new scores, and, where the
    items have labels, what backfilling is worth.

    Example: `nobackfill gallery upgrade faiss:photos --run runs/digits/bt2`
    """
    from nobackfill.cli.gallery.items import curve_line, new_embedder
    from nobackfill.gallery import Gallery

    require_model(run, name)
    gallery = Gallery.open(store)
    generation, embedder = new_embedder(gallery, run, name, data, split, vectors, ids, workers)
    added = gallery.upgrade(generation, embedder, sample=sample, calibrate=calibrate)
    typer.echo(f"{gallery.store.url}: queries of {added.name} work from now on")
    if calibrate:
        factors = gallery.manifest.calibration
        typer.echo(f"  calibration: {factors}" if factors else "  calibration: does not help; scores stay plain")
    if added.curve is not None:
        typer.echo(f"  expected top-1, measured on {added.curve.queries} items: {curve_line(added.curve)}")
