"""What `fit` found about a model, for verbs that would put it to use."""

from __future__ import annotations

from pathlib import Path


def fit_warning(run: Path | None) -> str | None:
    """One line if the run folder holds a fit whose verdict was to do nothing; None if not, or nothing is known."""
    from nobackfill.errors import NobackfillError
    from nobackfill.reports.document import read_report

    if run is None or not (run / "report.json").is_file():
        return None
    try:
        section = read_report(run / "report.json").fit
    except NobackfillError:  # of another kind, or damaged: what the gallery measures itself counts
        return None
    if section is None or section.verdict.decision != "do nothing":
        return None
    return (
        f"warning: fit found for {run} that doing nothing is better: keep searching with the old model until the "
        f"backfill is complete, then switch ({run / 'report.json'})"
    )
