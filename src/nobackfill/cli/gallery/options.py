"""Arguments that several gallery verbs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli import output
from nobackfill.cli.source import MODEL_HELP
from nobackfill.errors import ConfigError, shortened, visible
from nobackfill.gallery.stores.registry import FORMS

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help=f"{FORMS}.", show_default=False)]
RunOption = Annotated[Path | None, typer.Option("--run", "--model", help=MODEL_HELP, show_default=False)]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Instead of --run: the model's name, for vectors from files.")
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="images:DIR, texts:FILE[#COLUMN[,ID_COLUMN]] (.csv, .tsv, .jsonl, .parquet; default: column text, ids 0, "
        "1, …), or a data source as for `embed`. Default: the gallery's original one.",
        show_default=False,
    ),
]
VectorsOption = Annotated[
    Path | None,
    typer.Option("--vectors", help="Instead of --data: a .npy array [n, dim] (for a fitted run: its input vectors)."),
]
IdsOption = Annotated[Path | None, typer.Option("--ids", help="With --vectors: text file, one id per line.")]
ScopeOption = Annotated[
    str | None,
    typer.Option("--scope", help='Only items with these payload values: \'{"tenant": "a"}\'.', show_default=False),
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        help='Only items whose payload fulfils this: \'{"lang": "en", "year": {">=": 2020}, "not": {"draft": true}}\'.',
        show_default=False,
    ),
]
PayloadsOption = Annotated[
    Path | None,
    typer.Option("--payloads", help='JSON lines: {"id": "…", "payload": {…}}.', show_default=False),
]
JsonOption = output.JsonOption


def require_model(run: Path | None, name: str | None) -> None:
    """Raises `ConfigError` unless the model is given in exactly one way."""
    if (run is None) == (name is None):
        raise ConfigError("give either --run or --name")


def require_source(data: str | None, vectors: Path | None, ids: Path | None) -> None:
    """Raises `ConfigError` for options of which one would be ignored."""
    if vectors is not None and data is not None:
        raise ConfigError("give --data or --vectors, not both")
    if ids is not None and vectors is None:
        raise ConfigError("--ids: goes with --vectors")


def read_scope(text: str | None) -> dict[str, object]:
    """`--scope`: a JSON object of payload values; raises `ConfigError` for anything else."""
    if text is None:
        return {}
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(f'--scope {text[:80]!r}: expected a JSON object such as {{"tenant": "a"}}')
    return tree


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a text file; raises `ConfigError` naming `what` if it cannot be read."""
    from nobackfill.files import lines_of

    try:
        return lines_of(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path}: cannot be read as text: {error}") from None


def read_payloads(path: Path) -> dict[str, dict[str, object]]:
    """A file of JSON lines, `{"id": …, "payload": {…}}` each; raises `ConfigError` naming the first wrong line."""
    payloads: dict[str, dict[str, object]] = {}
    for number, line in enumerate(read_lines(path, "--payloads"), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        name, payload = (row.get("id"), row.get("payload")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str | int) or isinstance(name, bool) or not isinstance(payload, dict):
            raise ConfigError(
                f'--payloads {path}: line {number}: expected {{"id": "…", "payload": {{…}}}}, found {shortened(line)}'
            )
        payloads[str(name)] = payload
    return payloads


def say(text: str, *, err: bool = False, keep: str = "") -> None:
    """Print a line; names and ids in it come from a store and may hold anything (see `visible`, also for `keep`)."""
    typer.echo(visible(text, keep), err=err)


def show(as_json: bool, document: dict[str, object], *lines: str) -> None:
    """Print what was done, in one of two forms."""
    if as_json:
        output.print_json(document)
    else:
        typer.echo("\n".join(map(visible, lines)))


def counted(number: int, noun: str) -> str:
    """`1 item`, `2 items`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def store_options(pairs: list[str] | None) -> dict[str, str]:
    """`--option NAME=VALUE`, any number of them; raises `ConfigError` for one without a '='."""
    options = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--option {pair!r}: expected NAME=VALUE, such as index=hnsw")
        options[name] = value
    return options
