"""The reference pages, made from the code whenever the site is built; nothing of them is kept in the repository."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer.main
from mkdocs.structure.files import File, Files

from nobackfill.cli.app import app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

MODULES = ("nobackfill", "nobackfill.gallery", "nobackfill.maps", "nobackfill.interop")
SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Example|Yields):$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs: adds the two pages."""
    for name, text in (("reference/cli.md", command_line()), ("reference/api.md", python())):
        files.append(File.generated(config, name, content=text))
    return files


def command_line() -> str:
    """Every verb with its arguments and options."""
    root = typer.main.get_command(app)
    parts = ["# Command line", "As `nobackfill COMMAND --help` prints it.", *verbs(root, "nobackfill")]
    return "\n\n".join(parts) + "\n"


def verbs(command: Any, name: str) -> Iterator[str]:
    """The sections of a verb, or of the verbs below it."""
    for verb, below in sorted(getattr(command, "commands", {}).items()):
        if getattr(below, "commands", None):
            yield from verbs(below, f"{name} {verb}")
        else:
            yield f"## {name} {verb}"
            yield inspect.cleandoc(below.help or "")
            rows = [row(parameter) for parameter in below.params if parameter.name != "help"]
            if rows:
                yield "\n".join(["| argument or option | default | |", "|---|---|---|", *rows])


def row(parameter: Any) -> str:
    """One argument or option as a line of a table."""
    names = [*parameter.opts, *parameter.secondary_opts]
    shown = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(names)
    default = parameter.default
    plain = default is not None and default is not False and default != () and not callable(default)
    text = "required" if parameter.required else (f"`{default}`" if plain else "")
    described = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"| `{shown}` | {text} | {described} |"


def python() -> str:
    """The public names with their signatures and descriptions."""
    parts = ["# Python", "Made from the code. What is not listed here may change without notice."]
    for module_name in MODULES:
        module = __import__(module_name, fromlist=["__all__"])
        parts.append(f"## {module_name}")
        for name in sorted(set(module.__all__) - {"__version__"}):
            parts.extend(entry(name, getattr(module, name)))
    return "\n\n".join(parts) + "\n"


def entry(name: str, value: Any) -> Iterator[str]:
    """A function, a class with its public methods, or a constant."""
    if inspect.isclass(value):
        yield f"### {name}"
        yield described(value)
        for method, function in vars(value).items():
            plain = getattr(function, "__func__", function)
            if not method.startswith("_") and inspect.isfunction(plain):
                yield f"#### {name}.{method}"
                yield f"```python\n{method}{inspect.signature(plain)}\n```"
                yield described(plain)
    elif callable(value):
        yield f"### {name}"
        yield f"```python\n{name}{inspect.signature(value)}\n```"
        yield described(value)


def described(value: Any) -> str:
    """The docstring; its Google sections as blocks that keep their lines."""
    text = inspect.cleandoc(value.__doc__ or "")
    head, *rest = SECTION.split(text)
    blocks = [head.strip()]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        blocks.append(f"**{title}**\n\n```text\n{inspect.cleandoc(body)}\n```")
    return "\n\n".join(blocks)
