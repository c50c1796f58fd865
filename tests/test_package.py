from __future__ import annotations

import subprocess
import sys

import pytest

import nobackfill

HEAVY = {"torch", "torchvision", "timm", "accelerate", "matplotlib", "sklearn", "pyarrow", "pydantic", "numpy"}


@pytest.mark.train
def test_public_names_are_there() -> None:
    for name in nobackfill.__all__:
        assert getattr(nobackfill, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nobackfill.nothing


def test_importing_the_package_and_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, nobackfill, nobackfill.cli.app; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)
