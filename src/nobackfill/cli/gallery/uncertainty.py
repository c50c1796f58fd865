"""`nobackfill gallery uncertainty`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.gallery.options import JsonOption, StoreArgument, show


def uncertainty(
    store: StoreArgument,
    run: Annotated[
        Path | None, typer.Option(help="A fastfill fit, …/methods/fastfill-to-new: it judges the stored vectors.")
    ] = None,
    values: Annotated[Path | None, typer.Option(help="Instead of --run: uncertainties, floats, .npy [n].")] = None,
    ids: Annotated[
        Path | None, typer.Option(help="Text file, one id per line, of --values. Default: row numbers.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Record how unsure a map is of each item, for `nobackfill gallery backfill --order uncertain`.

    Replaces what was recorded before.

    Example: `nobackfill gallery uncertainty faiss:items --run fits/upgrade/methods/fastfill-to-new`
    """
    from collections.abc import Iterator

    from nobackfill.arrays import Floats
    from nobackfill.cli.gallery.items import any_there
    from nobackfill.cli.vectors import read_texts
    from nobackfill.errors import ConfigError, DataError
    from nobackfill.files import read_npy
    from nobackfill.gallery import Gallery
    from nobackfill.gallery.uncertainties import record
    from nobackfill.maps import uncertainty as uncertainty_of
    from nobackfill.models.runfolder import load_arrays

    if (run is None) == (values is None) or (ids is not None and values is None):
        raise ConfigError("gallery uncertainty: expected --run, or --values with or without --ids")
    gallery = Gallery.open(store)

    def by_run(folder: Path) -> Iterator[tuple[list[str], Floats]]:
        size = load_arrays(folder).input_dim
        for batch in gallery.store.scan(4096):
            if batch.vectors.shape[1] == size:  # items that are new already need no backfill
                yield batch.ids, uncertainty_of(folder, batch.vectors)

    if run is not None:
        count = record(gallery.store, by_run(run))
    else:
        array = read_npy(values or Path())
        if array.dtype.kind != "f" or array.ndim != 1:
            raise DataError(f"{values}: expected floats [n], found {array.dtype} {list(array.shape)}")
        names = read_texts(ids, len(array), "--ids") if ids else [str(row) for row in range(len(array))]
        if names and not any_there(gallery, names):
            raise ConfigError(f"{gallery.store.url}: none of the ids {names[0]}, … is in the gallery; give --ids")
        count = record(gallery.store, [(names, array)])
    if not count:
        raise DataError(
            f"{run}: the gallery holds no vectors of the size this run takes" if run else f"{values}: is empty"
        )
    show(json_, {"recorded": count}, f"{gallery.store.url}: uncertainties recorded: {count}")
