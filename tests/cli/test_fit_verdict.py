"""A fit that found doing nothing better is not put to use without a word."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nobackfill.cli.gallery import fit_verdict
from nobackfill.reports import document


@pytest.mark.parametrize("decision", ["do nothing", "use it", "cannot tell", None])
def test_the_verdict_of_a_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decision: str | None) -> None:
    (tmp_path / "report.json").write_text("{}")
    section: Any = SimpleNamespace(verdict=SimpleNamespace(decision=decision)) if decision else None
    monkeypatch.setattr(document, "read_report", lambda source: SimpleNamespace(fit=section))
    warning = fit_verdict.fit_warning(tmp_path)
    assert (warning is None) == (decision != "do nothing")
    assert warning is None or (warning.startswith("warning: fit found for") and "\n" not in warning)


@pytest.mark.parametrize("text", [None, "{", json.dumps({"format": 99}), "[]"])
def test_a_run_without_a_readable_report_has_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    assert fit_verdict.fit_warning(tmp_path) is None
    assert fit_verdict.fit_warning(None) is None
