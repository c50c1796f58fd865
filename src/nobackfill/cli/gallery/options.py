"""Arguments that several gallery verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.source import MODEL_HELP
from nobackfill.errors import ConfigError
from nobackfill.gallery.stores.registry import FORMS

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help=f"{FORMS}.", show_default=False)]
RunOption = Annotated[Path | None, typer.Option("--run", "--model", help=MODEL_HELP, show_default=False)]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Instead of --run: the model's name, for vectors from files.")
]
DataOption = Annotated[
    str | None, typer.Option("--data", help="Data source, as for `embed`; default: the gallery's original one.")
]
VectorsOption = Annotated[
    Path | None,
    typer.Option("--vectors", help="Instead of --data: a .npy array [n, dim] (for a fitted run: its input vectors)."),
]
IdsOption = Annotated[Path | None, typer.Option("--ids", help="With --vectors: text file, one id per line.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def require_model(run: Path | None, name: str | None) -> None:
    """Raises `ConfigError` unless the model is given in exactly one way."""
    if (run is None) == (name is None):
        raise ConfigError("give either --run or --name")


def budget_of(text: str | None) -> float | None:
    """`--budget`: a fraction, or an integer number of items; raises `ConfigError` for anything else."""
    if text is None:
        return None
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise ConfigError(
            f"--budget {text!r}: expected a fraction such as 0.25 or a number of items such as 10000"
        ) from None


def store_options(pairs: list[str] | None) -> dict[str, str]:
    """`--option NAME=VALUE`, any number of them; raises `ConfigError` for one without a '='."""
    options = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--option {pair!r}: expected NAME=VALUE, such as index=hnsw")
        options[name] = value
    return options
