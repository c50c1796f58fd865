"""What the help shows: the verbs by task, few options at first, and all of it at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from nobackfill.cli.app import app, run

FIRST = 12
"""Options that a verb's help shows before the panel "Advanced", `--help` among them."""
ADVANCED = "Advanced"


def verbs(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All commands that do something, by the words that call them."""
    command = command or typer.main.get_command(app)
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, inner in command.commands.items():
        yield from verbs(inner, (*path, name))


def panels(help_text: str) -> list[str]:
    return [line.strip("╭╮─ ") for line in help_text.splitlines() if line.startswith("╭")]


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
