"""README says nothing untrue: its Python runs, its commands exist, its two set-up commands are where CI looks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nobackfill.cli.app import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.train
@pytest.mark.slow
def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    dims, scores, verdict, gallery = capsys.readouterr().out.splitlines()
    assert dims.startswith("40 (OlderSpace(generation='independent-")
    assert "dim=32" in dims
    assert all(0.5 < float(score) <= 1 for score in scores.split())
    assert verdict.startswith("ship Difference(mean=0.")
    assert gallery.startswith("digit ")
    assert gallery.endswith("} []")


def commands() -> list[str]:
    shell = [
        line.partition("  #")[0].strip() for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()
    ]
    table = re.findall(r"`(nobackfill [^`]*)`", README)
    return [line for line in [*shell, *table] if line.startswith("nobackfill ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_has_known_options_and_configs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *arguments = shlex.split(command.removeprefix("nobackfill "))
    if arguments and verb in ("data", "gallery"):
        verb = f"{verb} {arguments.pop(0)}"
    assert run([*verb.split(), "--help"]) == 0
    known = capsys.readouterr().out
    for argument in arguments:
        if argument.startswith("--"):
            assert argument in known, f"{command}: no option {argument}"
        if argument.startswith("configs/"):
            assert list(ROOT.glob(argument)), f"{command}: no file {argument}"


def test_it_is_short_and_holds_the_two_commands() -> None:
    assert README.count("\n") <= 150
    assert "\npip install -e '.[train]' && nobackfill demo" in README
    assert "\npip install -e '.[dev]' && pytest" in README
