"""`nobackfill gallery create`."""

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
    store_options,
)
from nobackfill.cli.source import SplitOption, WorkersOption

OPTION_HELP = "Store option: index=flat, hnsw or ivfpq (FAISS); halfvec=true (PostgreSQL, half precision)."


def create(
    store: StoreArgument,
    run: RunOption = None,
    name: NameOption = None,
    data: DataOption = None,
    split: SplitOption = "test",
    vectors: VectorsOption = None,
    ids: IdsOption = None,
    workers: WorkersOption = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help=OPTION_HELP, show_default=False)
    ] = None,
) -> None:
    """Create a gallery from a data set or from a file of vectors.

    Example: `nobackfill gallery create faiss:photos --run runs/digits/old --data digits`
    """
    from nobackfill.cli.gallery.items import array_batches, embedded_batches, load_encoder, open_items, read_vectors
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery, Generation, open_store

    require_model(run, name)
    opened = open_store(store, **store_options(option))
    encoder = load_encoder(run)
    if vectors is not None:
        names, rows = read_vectors(vectors, ids)
        generation = Generation.of(encoder.spec) if encoder else Generation.named(name or "", rows.shape[1])
        gallery = Gallery.create(opened, generation, array_batches(names, rows, encoder))
    elif encoder is not None and data is not None:
        items = open_items(data, split, workers, encoder)
        gallery = Gallery.create(
            opened, Generation.of(encoder.spec), embedded_batches(encoder, items), f"{split} {data}"
        )
    else:
        raise ConfigError("give --run and --data, or --vectors")
    typer.echo(f"{opened.url}: {gallery.status().total} vectors of {gallery.manifest.generations[0].name}")
