"""A run folder whose map a fit found no better than doing nothing is not put to use without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.reports.test_fit_verdicts import fitted, row

from nobackfill.cli.gallery.fit_verdict import fit_warning
from nobackfill.evaluation.comparison import Overall
from nobackfill.reports.document import FitSection, Report


def written(folder: Path, fit: FitSection | None) -> Path:
    (folder / "report.json").write_text(Report(fit=fit).to_json())
    return folder


@pytest.mark.parametrize("found", ["worse", "mixed", "better", "cannot tell"])
@pytest.mark.parametrize("mapped", ["better", "cannot tell"])
def test_the_map_of_the_folder_counts_whatever_another_way_gains(
    tmp_path: Path, found: Overall, mapped: Overall
) -> None:
    fit = fitted(row("bt2", "new/old", found, 0.5), row("ridge", "new/mapped", mapped, 0.6), best="bt2")
    warning = fit_warning(written(tmp_path, fit))
    assert (warning is None) == (found not in ("worse", "mixed"))
    if found == "worse":
        assert warning == (
            f"warning: fit found for {tmp_path} that bt2, new/old, is worse than the status quo; "
            f"keep searching with the old model until the gallery is backfilled. See {tmp_path / 'report.json'}"
        )


def test_without_labels_the_warning_calls_nothing_worse(tmp_path: Path) -> None:
    fit = fitted(row("ridge", "new/old", "worse", 0.5, labelled=False), best="ridge")
    warning = fit_warning(written(tmp_path, fit))
    assert warning is not None
    assert "is further from the new model's answers than the status quo; " in warning


@pytest.mark.parametrize("text", [None, "{", json.dumps({"format": 99}), "[]"])
def test_a_run_without_a_readable_report_has_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    assert fit_warning(tmp_path) is None
    assert fit_warning(None) is None
    assert fit_warning(written(tmp_path, None)) is None
