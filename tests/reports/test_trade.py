"""What is drawn of BT² at several settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from nobackfill.evaluation.candidates import FULL, STATUS_QUO, CandidateResult
from nobackfill.evaluation.verdict import Verdict
from nobackfill.reports.document import FitSection
from nobackfill.reports.fits import draw_trade


def test_each_method_and_scale_has_lines_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, tuple[list[int], list[float]]] = {}

    def plot(self: Axes, x: list[int], y: list[float], *rest: object, label: str, **options: object) -> None:
        drawn[label] = (x, [round(value, 1) for value in y])

    monkeypatch.setattr(Axes, "plot", plot)
    rows = [CandidateResult(STATUS_QUO, "old/old", 8, 0.2, {}), CandidateResult(FULL, "new/new", 12, 1.0, {})]
    for method, overlap in (("bt2", 0.5), ("bt2_residual", 0.1)):
        for k in (32, 8):
            for searched, dim, more in (("new/old", 8, 0.0), ("new/new", 12 + k, 0.2)):
                rows.append(CandidateResult(f"{method}_k{k}_c2", searched, dim, overlap + more + k / 1000, {}))
    fit: Any = {"verdict": Verdict("cannot tell", ()), "best": "x", "dropped": 0, "fitted_on_gallery": False}
    assert draw_trade(FitSection(results=rows, **fit), tmp_path / "trade.png")
    assert drawn == {
        "bt2, new/old, C = 2": ([20, 44], [50.8, 53.2]),
        "bt2, new/new, C = 2": ([20, 44], [70.8, 73.2]),
        "bt2_residual, new/old, C = 2": ([20, 44], [10.8, 13.2]),
        "bt2_residual, new/new, C = 2": ([20, 44], [30.8, 33.2]),
    }
