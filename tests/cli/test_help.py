"""What the help shows: the verbs by task, few options at first, and all of it at once."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from nobackfill.cli.app import app, run
from nobackfill.cli.panels import ADVANCED

FIRST = 12
"""Options that a verb's help shows before the panel of advanced ones, `--help` among them."""


def verbs(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All commands that do something, by the words that call them."""
    command = command or typer.main.get_command(app)
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, inner in command.commands.items():
        yield from verbs(inner, (*path, name))


def panels(help_text: str) -> list[str]:
    return [line.strip("╭╮─ ") for line in plain(help_text).splitlines() if line.startswith("╭")]


def plain(text: str) -> str:
    """Without colours, which Typer prints on CI servers, and where they were asked for when it was loaded."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_alone_it_shows_the_verbs_by_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert panels(capsys.readouterr().out) == [
        "Options",
        "Start here",
        "Models you train",
        "Models from elsewhere",
        "Vectors you have",
        "Measure an upgrade",
        "Galleries in use",
    ]


def test_gallery_alone_does_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gallery"]) == 2
    assert panels(capsys.readouterr().out) == ["Options", "Set up", "Use", "Upgrade", "Undo", "Look"]


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from nobackfill.cli.app import run; code = run(['--help']); "
        "loaded = {'faiss', 'matplotlib', 'numba', 'numpy', 'pyarrow', 'torch'} & set(sys.modules); "
        "sys.exit(f'{code} {loaded}' if code or loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("words", "command"), [pytest.param(*each, id=each[0]) for each in verbs()])
def test_a_verb_shows_few_options_first(words: str, command: Any) -> None:
    options = [each for each in command.get_params(command.make_context(words, [], resilient_parsing=True))
               if each.param_type_name == "option" and not each.hidden]  # fmt: skip
    panels_of = [getattr(each, "rich_help_panel", None) for each in options]
    assert set(panels_of) <= {None, ADVANCED}, words
    first = [each.opts[0] for each, panel in zip(options, panels_of, strict=True) if panel is None]
    assert len(first) <= FIRST, f"{words}: {len(first)} options, {first}: put some under {ADVANCED!r}"


def test_what_is_advanced_is_shown_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "--help"]) == 0
    printed = plain(capsys.readouterr().out)
    assert panels(printed) == ["Options", ADVANCED]
    assert printed.index("--direction") < printed.index(f"{ADVANCED} ─") < printed.index("--query-old")
