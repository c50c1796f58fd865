"""`nobackfill gallery create`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.gallery.options import (
    DataOption,
    IdsOption,
    JsonOption,
    NameOption,
    RunOption,
    StoreArgument,
    VectorsOption,
    counted,
    require_model,
    require_source,
    show,
    store_options,
)
from nobackfill.cli.source import SplitOption, WorkersOption

if TYPE_CHECKING:
    from nobackfill.gallery.writing import Batch

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
    replace: Annotated[bool, typer.Option("--replace", help="Remove the gallery that is there first.")] = False,
    empty: Annotated[
        int | None,
        typer.Option("--empty", min=1, metavar="DIM", help="No items yet, vectors of this size; see `upsert`."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Create a gallery from a data set or from a file of vectors, or an empty one.

    Example: `nobackfill gallery create faiss:photos --run runs/digits/old --data digits`
    """
    from nobackfill.cli.gallery.items import array_batches, embedded_batches, load_encoder, open_items, read_vectors
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery, Generation, open_store

    require_model(run, name)
    require_source(data, vectors, ids)
    if empty is not None and (data or vectors):
        raise ConfigError("--empty: the gallery has no items yet; leave out --data and --vectors")
    opened = open_store(store, **store_options(option))
    encoder = load_encoder(run)
    source = None
    batches: Iterable[Batch] = ()
    if empty is not None:
        generation = Generation.of(encoder.spec) if encoder else Generation.named(name or "", empty)
        if generation.dim != empty:
            raise ConfigError(f"--empty {empty}: {generation.name} has vectors of {generation.dim} values")
    elif vectors is not None:
        names, rows = read_vectors(vectors, ids)
        generation = Generation.of(encoder.spec) if encoder else Generation.named(name or "", rows.shape[1])
        batches = array_batches(vectors, names, rows, encoder)
        if not names:
            raise ConfigError(f"--vectors {vectors}: has no rows; for a gallery to be filled later give --empty DIM")
    elif encoder is not None and data is not None:
        items = open_items(data, split, workers, encoder)
        generation, batches, source = Generation.of(encoder.spec), embedded_batches(encoder, items), f"{split} {data}"
    else:
        raise ConfigError("give --run and --data, or --vectors, or --empty")
    total = Gallery.create(opened, generation, batches, source, replace=replace).count()
    text = f"{opened.url}: {counted(total, 'vector')} of {generation.name}"
    show(json_, {"items": total, "generation": generation.name}, text)
