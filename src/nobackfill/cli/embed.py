"""`nobackfill embed`: vectors of a data set into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.output import JsonOption, print_json
from nobackfill.cli.source import (
    DATA_HELP,
    MODEL_HELP,
    BadImageOption,
    RayOption,
    SplitOption,
    WorkersOption,
    given_for_data,
    open_data,
)

IMAGES = 256  # per batch


def embed(
    run: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)],
    out: Annotated[Path, typer.Option(help="Output file, .npy or .parquet.", show_default=False)],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Instead of --data, for a fitted run: input vectors (.npy).")
    ] = None,
    split: SplitOption = "test",
    on_bad_image: BadImageOption = "fail",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per batch. Default: 256; with --vectors 4096.")
    ] = None,
    ray: RayOption = None,
    workers: WorkersOption = None,
    json_: JsonOption = False,
) -> None:
    """Embed a data set, keeping its order.

    A .npy file holds float32 [n, dim]. A .parquet file has one row per image: id (file or position), label, class name,
    vector; its metadata names the generation that made the vectors.

    Example: `nobackfill embed runs/digits/bt2 --data digits --out vectors.parquet`

    Example: `nobackfill embed fits/upgrade --vectors new.npy --out compatible.npy`
    """
    from nobackfill.cli.vectors import items_of
    from nobackfill.errors import ConfigError
    from nobackfill.models import EmbeddingSpec, load
    from nobackfill.models.vector_files import WRITERS, write_vectors

    if out.suffix not in WRITERS:
        raise ConfigError(f"--out {out}: unknown extension {out.suffix!r}, expected {' or '.join(WRITERS)}")
    if (data is None) == (vectors is None):
        raise ConfigError("embed: expected either --data, or --vectors for a fitted run")
    if vectors is not None:
        for option, given in {**given_for_data(split, on_bad_image, workers), "--ray": ray is not None}.items():
            if given:
                raise ConfigError(f"{option}: works only with --data, and --vectors {vectors} is given; leave it out")
    encoder = load(run)
    if ray is not None and not isinstance(encoder.spec, EmbeddingSpec):
        raise ConfigError(f"--ray: works with run folders, and {run} is not one; leave it out")
    if vectors is not None:
        images = items_of(vectors, encoder)
        made = encoder.encode_set(images, batch_size=batch_size)
    else:
        images, processes = open_data(data or "", split, on_bad_image, workers)
        if ray is None:
            made = encoder.encode_set(images, processes, batch_size or IMAGES)
        else:
            from nobackfill.interop.cluster import encode_set_on_cluster

            made = encode_set_on_cluster(run, images, batch_size or IMAGES, ray, None)
    write_vectors(out, made, images, encoder.spec)
    if json_:
        print_json(
            {"out": str(out), "vectors": len(made), "dim": encoder.spec.dim, "generation": encoder.spec.generation}
        )
        return
    typer.echo(f"{out}: {len(made)} vectors of {encoder.spec.dim} values, generation {encoder.spec.generation}")
