"""The `nobackfill` command: its verbs, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from nobackfill import __version__
from nobackfill.cli.check import check
from nobackfill.cli.data import data
from nobackfill.cli.demo import demo
from nobackfill.cli.doctor import doctor
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
from nobackfill.progress import be_quiet, be_verbose, is_verbose

app: typer.Typer = typer.Typer(
    name="nobackfill",
    help="Upgrade an embedding model without re-embedding the gallery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="`nobackfill COMMAND --help` shows its options and an example; every command takes `-q` and `-v`, too.",
)
START, MODELS, OTHERS, VECTORS, MEASURE = (
    "Start here",
    "Models you train",
    "Models from elsewhere",
    "Vectors you have",
    "Measure an upgrade",
)
VERBS: dict[str, tuple[str, Callable[..., None]]] = {
    "demo": (START, demo),
    "methods": (START, methods),
    "doctor": (START, doctor),
    "train": (MODELS, train),
    "run": (MODELS, run_verb),
    "runs": (MODELS, runs),
    "check": (MODELS, check),
    "import-text": (OTHERS, import_text),
    "import-clip": (OTHERS, import_clip),
    "import-reference": (OTHERS, import_reference),
    "export": (OTHERS, export),
    "embed": (VECTORS, embed),
    "fit": (VECTORS, fit),
    "evaluate": (MEASURE, evaluate),
    "report": (MEASURE, report),
}
"""The verbs in the order of the help, each with the panel that it is shown in; groups of verbs come after them."""
LEVELS = ("--quiet", "-q", "--verbose", "-v")
for _name, (_panel, _verb) in VERBS.items():
    app.command(_name, rich_help_panel=_panel)(_verb)
app.add_typer(data, name="data", rich_help_panel=MODELS)
app.add_typer(gallery, name="gallery", rich_help_panel="Galleries in use")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nobackfill {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no notes; results and warnings stay.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Log progress where stderr is no terminal; tell where an error is from."),
    ] = False,
) -> None:
    del version  # its callback has seen to it
    be_quiet(quiet)
    be_verbose(verbose)


def main() -> None:
    """Run the command line. Whatever a user can cause ends in one line on stderr and exit code 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 2 wrong input, 130 interrupted."""
    try:
        return _called(arguments)
    except NobackfillError as error:
        if is_verbose():
            traceback.print_exc()
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
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    levels = [each for each in own if each in LEVELS]  # of the whole command, wherever they stand
    arguments = [*levels, *(each for each in own if each not in LEVELS), *arguments[len(own) :]]
    try:
        code = app(arguments, prog_name="nobackfill", standalone_mode=False)
    except ModuleNotFoundError as error:  # the verb needs more than the base install has
        raise missing_package(error.name) or error from error
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int = 2) -> int:
    line = visible(" ".join(message.split()))
    print(f"nobackfill: {line}", file=sys.stderr)
    return code
