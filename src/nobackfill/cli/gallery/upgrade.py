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
    say,
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
    rule: Annotated[
        str,
        typer.Option(
            help="How old and new scores are compared: auto (chosen on the sample), plain, quantiles, calibrated, "
            "z_score or z_calibrated."
        ),
    ] = "auto",
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Add it even if its vectors do not fit the stored ones.")
    ] = False,
    workers: WorkersOption = None,
    json_: JsonOption = False,
) -> None:
    """Add a new model: its queries work at once; stored vectors stay as they are.

    The new model embeds a sample of the items to choose how old and new scores are compared, and to measure the
    expected gain of a backfill: by the items' labels, or by agreement with the new model if they have none.

    Example: `nobackfill gallery upgrade faiss:photos --run runs/digits/bt2`
    """
    from nobackfill.cli.gallery.fit_verdict import fit_warning
    from nobackfill.cli.gallery.items import curve_line, new_embedder
    from nobackfill.gallery import Gallery
    from nobackfill.gallery.expected import check_rule
    from nobackfill.gallery.pair_rules import rule_line
    from nobackfill.gallery.status import rule_warning

    require_model(run, name)
    if warning := fit_warning(run):
        say(warning, err=True)
    wanted = check_rule(rule)
    gallery = Gallery.open(store)
    generation, embedder = new_embedder(gallery, run, name, data, split, vectors, ids, workers)
    served_before = gallery.manifest.serves_from
    added = gallery.upgrade(generation, embedder, sample=sample, rule=wanted, unchecked=unchecked)
    if json_:
        typer.echo(added.model_dump_json(indent=2))
        return
    say(f"{gallery.store.url}: queries of {added.name} now work")
    manifest = gallery.manifest
    if manifest.serves_from > served_before:
        oldest = manifest.name(manifest.serves_from)
        say(
            f"queries and items older than {oldest} are no longer served: {added.name} does not compare with them",
            err=True,
        )
    for pair in manifest.rules:
        if pair.query == manifest.newest:
            say(f"  {rule_line(pair, manifest.name)}")
    if warning := rule_warning(manifest):
        say(warning, err=True)
    if added.curve is not None:
        say(f"  expected top-1, measured on {added.curve.queries} items: {curve_line(added.curve)}")
