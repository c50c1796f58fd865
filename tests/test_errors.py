from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nobackfill
from nobackfill.cli import app
from nobackfill.errors import PACKAGES, MissingPackageError, missing_package, one_line, require

EXTRA = r"pip install 'nobackfill\[train\]'"


def test_require__names_the_package_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require("json")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=f"^this needs PyTorch: {EXTRA}$") as caught:
        require("json", "torch")
    assert isinstance(caught.value, ImportError)
    with pytest.raises(MissingPackageError, match=f"^--fast needs PyTorch: {EXTRA}$"):
        require("torch", what="--fast")


def test_require__a_module_of_no_extra_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nothing", None)
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        require("nothing")


def test_missing_package__knows_modules_of_any_depth() -> None:
    assert str(missing_package("torch.nn.functional")).startswith("this needs PyTorch")
    assert missing_package("numpy.linalg") is None
    assert missing_package(None) is None


def test_every_extra_is_one_of_the_project() -> None:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = pyproject.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    for name, (_, extra) in PACKAGES.items():
        (line,) = re.findall(rf"^{extra} = \[(.*)\]$", extras, re.MULTILINE)
        package = {"sklearn": "scikit-learn", "tokenizers": "transformers"}.get(name, name.replace("_", "-"))
        assert f'"{package}' in line, name


def test_one_line() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line("x" * 200) == "x" * 160
    assert one_line("x" * 200, 3) == "xxx"


def test_the_command_line_says_what_a_verb_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(app, "app", lambda *_, **__: missing("torch.nn"))
    assert app.run(["train"]) == 2
    assert capsys.readouterr().err == "nobackfill: this needs PyTorch: pip install 'nobackfill[train]'\n"
    monkeypatch.setattr(app, "app", lambda *_, **__: missing("numpy"))
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        app.run(["train"])


def test_the_package_says_what_a_name_needs() -> None:
    code = "import sys; sys.modules['torch'] = None; import nobackfill; nobackfill.train"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "nobackfill.train needs PyTorch: pip install 'nobackfill[train]'" in found.stderr
    assert nobackfill.NobackfillError is not None
