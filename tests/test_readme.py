"""README and quickstarts say nothing untrue: their blocks run in order, their commands exist, CI finds its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nobackfill.cli.app import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {page.stem: page.read_text() for page in (ROOT / "docs" / "quickstart").glob("*.md")}
BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)


def play(page: str, folder: Path) -> str:
    """Run a page's blocks in order, as a reader would in a fresh clone; what they print."""
    for name in ("configs", "examples"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    start = f'nobackfill() {{ {shlex.quote(sys.executable)} -m nobackfill "$@"; }}\n'
    start += f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
    printed = []
    for language, block in BLOCK.findall(page):
        if "[dev]" in block or "text_upgrade" in block:
            continue  # the tests themselves; what interop/test_text_example.py runs
        text = re.sub(r"^pip install [^&]*&& ", "", block, flags=re.MULTILINE)
        text = re.sub(r"^nobackfill demo", "nobackfill demo --seeds 1", text, flags=re.MULTILINE)
        shell = ["bash", "-euo", "pipefail", "-c", start + text]
        command = shell if language == "sh" else [sys.executable, "-W", "error", "-c", block]
        environment = {**os.environ, "COLUMNS": "200", "TMPDIR": str(folder)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return "".join(printed)


@pytest.mark.train
@pytest.mark.slow
def test_the_readme_runs_from_top_to_bottom(tmp_path: Path) -> None:
    printed = play(README, tmp_path)
    assert "fits/upgrade: procrustes, new/old, better than the status quo\n" in printed
    assert "\nship Difference(mean=0." in printed
    assert "of 599 now embedded by bt2-" in printed


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.nightly
def test_the_quickstart_for_images_runs(tmp_path: Path) -> None:
    printed = play(PAGES["images"], tmp_path)
    assert "Verdict: ship." in printed
    dims, scores, verdict, gallery = printed.splitlines()[-4:]
    assert dims.startswith("40 (OlderSpace(generation='independent-")
    assert "dim=32" in dims
    assert all(0.5 < float(score) <= 1 for score in scores.split())
    assert verdict.startswith("ship Difference(mean=0.")
    assert gallery.startswith("digit ")
    assert gallery.endswith("} []")


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.nightly
def test_the_quickstart_for_vectors_runs(tmp_path: Path) -> None:
    printed = play(PAGES["vectors"], tmp_path)
    assert re.search(r"^fits/upgrade: (procrustes|ridge); ", printed, re.MULTILINE), printed


@pytest.mark.slow
@pytest.mark.nightly
def test_the_quickstart_for_hosted_models_runs(tmp_path: Path) -> None:
    assert play(PAGES["hosted"], tmp_path).splitlines()[-1].startswith("375 ")


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.nightly
def test_the_quickstart_for_research_runs(tmp_path: Path) -> None:
    play(PAGES["research"], tmp_path)
    assert "bct" in (tmp_path / "table.md").read_text()


def commands() -> list[str]:
    found = []
    for page in (README, *PAGES.values(), (ROOT / "docs" / "bt2_repository.md").read_text()):
        blocks = [block.replace("\\\n", "") for language, block in BLOCK.findall(page) if language == "sh"]
        lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
        inline = re.findall(r"`(nobackfill [^`]*)`", BLOCK.sub("", page))
        found += [line for line in [*lines, *inline] if line.startswith("nobackfill ")]
    return sorted(set(found))


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
    assert README.count("\n") <= 130
    assert "\npip install -e '.[train]' && nobackfill demo" in README
    assert "\npip install -e '.[dev]' && pytest" in README


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", BLOCK.sub("", page.read_text())):
            assert (page.parent / target).exists(), f"{page.name}: {target} does not exist"


def test_drawings_show_without_the_net() -> None:
    pages = {page: page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}
    assert [page.name for page, text in pages.items() if "```mermaid" in text] == []
    for drawing in (ROOT / "docs" / "images").glob("*.svg"):
        loaded = re.findall(r"""(?:href|src)\s*=\s*["'](?!\#)([^"']+)|url\((?!\#|"?\#)([^)]+)""", drawing.read_text())
        assert loaded == [], f"{drawing.name} loads something"
