"""Imports run one way between rooms, and the rooms of the base install do without PyTorch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
EXTRA = {"torch", "torchvision", "timm", "sklearn", "scipy", "accelerate", "transformers", "safetensors.torch"}
BASE = (
    "evaluation",
    "gallery",
    "maps",
    "reports",
    "cli",
    "config",
    "errors",
    "files",
    "untrusted",
    "cache",
    "progress",
    "machine",
)
"""What a base install must be able to import; whatever these import has to be so too."""
BELOW = {
    "evaluation": set(),
    "gallery": {"evaluation"},
    "data": set(),
    "models": {"data"},
    "methods": {"models", "data"},
    "training": {"methods", "models", "data", "evaluation"},
    "maps": {"training", "methods", "models", "data", "evaluation"},
    "interop": {"maps", "training", "methods", "models", "data"},
    "reports": {"maps", "models", "data", "evaluation"},
    "experiments": {"reports", "training", "models", "data", "evaluation"},
}
"""Room → the rooms it may import, at any time. The command line may import all of them."""


@cache
def modules() -> tuple[str, ...]:
    files = (path.relative_to(SOURCE).with_suffix("") for path in SOURCE.rglob("*.py"))
    return tuple(sorted(".".join(file.parts).removesuffix(".__init__") for file in files))


def parsed(module: str) -> tuple[ast.Module, bool]:
    path = SOURCE.joinpath(*module.split("."))
    package = path.is_dir()
    return ast.parse((path / "__init__.py" if package else path.with_suffix(".py")).read_text("utf-8")), package


def statements(body: list[ast.stmt], deep: bool) -> Iterator[ast.stmt]:
    """Of a module: those run when it is imported; with `deep` those inside functions as well; never those for types."""
    for statement in body:
        if isinstance(statement, ast.If) and getattr(statement.test, "id", "") == "TYPE_CHECKING":
            continue
        yield statement
        inside = deep or not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        for field in ("body", "orelse", "finalbody") if inside else ():
            yield from statements(getattr(statement, field, []), deep)
        for handler in getattr(statement, "handlers", []):
            yield from statements(handler.body, deep)


@cache
def imported(module: str, *, deep: bool = False) -> frozenset[str]:
    """Modules a module names in its imports."""
    tree, _ = parsed(module)
    names: set[str] = set()
    for statement in statements(tree.body, deep):
        if isinstance(statement, ast.Import):
            names.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{module}: a relative import"
            inside = {f"{statement.module}.{alias.name}" for alias in statement.names}
            names.update({statement.module or "", *(inside & set(modules()))})
    return frozenset(names)


def reached(module: str) -> dict[str, str]:
    """All modules that importing this one imports, within the package; each with who imports it."""
    found, left = {module: ""}, [module]
    while left:
        one = left.pop()
        packages = {one.rsplit(".", depth)[0] for depth in range(1, one.count(".") + 1)}
        for name in imported(one) | packages:
            if name.startswith("nobackfill") and name not in found:
                found[name] = one
                left.append(name)
    return found


def room(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("module", [module for module in modules() if room(module) in BASE])
def test_the_base_install_can_import_it(module: str) -> None:
    for name, importer in reached(module).items():
        for foreign in imported(name):
            top = foreign if foreign in EXTRA else foreign.partition(".")[0]
            assert top not in EXTRA, f"{name} imports {foreign} when it is imported (by {importer or 'you'})"


@pytest.mark.parametrize("module", [module for module in modules() if room(module) in BELOW])
def test_imports_run_one_way(module: str) -> None:
    own = room(module)
    others = {room(name) for name in imported(module, deep=True) if name.startswith("nobackfill.")}
    allowed = BELOW[own] | {own}
    if module.startswith("nobackfill.gallery.embedders."):  # where a gallery meets models, once one is used
        allowed |= {"interop", "models", "data"}
    wrong = (others & {*BELOW, "cli"}) - allowed
    assert not wrong, f"{module} imports from {', '.join(sorted(wrong))}"
