"""The `nobackfill` command: its verbs, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nobackfill import __version__
from nobackfill.cli.check import check
from nobackfill.cli.data import data
from nobackfill.cli.demo import demo
from nobackfill.cli.embed import embed
from nobackfill.cli.evaluate import evaluate
from nobackfill.cli.export import export
from nobackfill.cli.fit import fit
from nobackfill.cli.gallery import gallery
from nobackfill.cli.import_clip import import_clip
from nobackfill.cli.import_reference import import_reference
from nobackfill.cli.import_text import import_text
from nobackfill.cli.methods import methods
from nobackfill.cli.report import report
from nobackfill.cli.run import run as run_verb
from nobackfill.cli.runs import runs
from nobackfill.cli.train import train
from nobackfill.errors import NobackfillError, missing_package, visible

app = typer.Typer(
    name="nobackfill",
    help="Upgrade an embedding model without re-embedding the gallery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for verb in (
    demo,
    train,
    fit,
    runs,
    evaluate,
    embed,
    export,
    check,
    report,
    import_reference,
    import_clip,
    import_text,
):
    app.command()(verb)
app.command("run")(run_verb)
app.command("methods")(methods)
app.add_typer(data, name="data")
app.add_typer(gallery, name="gallery")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nobackfill {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Whatever a user can cause ends in one line on stderr and exit code 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 2 wrong input, 130 interrupted."""
    try:
        return _called(arguments)
    except NobackfillError as error:
        return _fail(str(error), error.code)
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except OSError as error:
        return _fail(f"{error.filename or 'file system'}: {(error.strerror or str(error)).lower()}")
    except Exception as error:
        # A mistyped option or a missing argument: the parser's own exceptions know how to say it.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().rstrip(".")
        return _fail(f"{message}; see nobackfill --help") if message else 2  # empty: the help was printed instead


def _called(arguments: list[str]) -> int:
    try:
        code = app(arguments, prog_name="nobackfill", standalone_mode=False)
    except ModuleNotFoundError as error:  # the verb needs more than the base install has
        raise missing_package(error.name) or error from error
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int = 2) -> int:
    line = visible(" ".join(message.split()))
    print(f"nobackfill: {line}", file=sys.stderr)
    return code
