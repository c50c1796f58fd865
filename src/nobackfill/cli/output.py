"""What a verb prints: text for people, or one JSON document for programs."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@contextlib.contextmanager
def for_people(json_: bool) -> Iterator[None]:
    """What the block prints on stdout is left out where JSON is wanted; notes and errors on stderr stay."""
    with contextlib.redirect_stdout(io.StringIO()) if json_ else contextlib.nullcontext():
        yield


def print_json(document: object) -> None:
    """As the whole of stdout; control characters are escaped."""
    typer.echo(json.dumps(document, indent=2))
