"""`nobackfill data`: data sets made ready."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.output import JsonOption, print_json

data: typer.Typer = typer.Typer(help="Prepare data sets.", no_args_is_help=True, rich_markup_mode="markdown")


@data.callback()
def _root() -> None:
    pass


@data.command()
def prepare(
    name: Annotated[str, typer.Argument(help="cifar100", show_default=False)],
    source: Annotated[Path, typer.Argument(help="Official archive, or folder that holds the data set.")],
    out: Annotated[Path, typer.Option(help="Output folder.", show_default=False)],
    md5: Annotated[str | None, typer.Option(help="Expected MD5 of the archive instead of the published one.")] = None,
    json_: JsonOption = False,
) -> None:
    """Write a data set as folders of PNG files, one per class, in `training` and `validation`.

    Example: `nobackfill data prepare cifar100 cifar-100-python.tar.gz --out data_store/cifar-100-python`
    """
    from nobackfill.data.prepare import prepare_cifar100
    from nobackfill.errors import ConfigError

    if name != "cifar100":
        raise ConfigError(f"data prepare: unknown data set {name!r}; known: cifar100")
    counts = prepare_cifar100(source, out, md5)
    if json_:
        print_json({"out": str(out), "images": counts})
        return
    typer.echo(f"{out}: {' and '.join(f'{count} {split}' for split, count in counts.items())} images")
