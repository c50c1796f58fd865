"""Evaluation and reports need no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "timm", "sklearn", "accelerate")


@pytest.mark.parametrize(
    "module",
    [
        "evaluation",
        "evaluation.candidates",
        "reports.html",
        "reports.markdown",
        "reports.fits",
        "reports.lineage_tables",
    ],
)
def test_nothing_heavy_is_imported(module: str) -> None:
    code = f"import sys, nobackfill.{module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
