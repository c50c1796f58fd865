"""What `fit` found about a model, for verbs that would put it to use."""

from __future__ import annotations

from pathlib import Path


def fit_warning(run: Path | None) -> str | None:
    """One line if the run folder is of a fit that lost to doing nothing; None if not, or nothing is known."""
    from nobackfill.errors import NobackfillError
    from nobackfill.evaluation.candidates import keep_old, published
    from nobackfill.reports.document import read_report

    if run is None or not (run / "report.json").is_file():
        return None
    try:
        section = read_report(run / "report.json").fit
    except NobackfillError:  # of another kind, or damaged: what the gallery measures itself counts
        return None
    # The verdict may be for another way than the one that this folder is for.
    own = None if section is None else published(section.results, section.best)
    if section is None or own is None or own.decision not in ("worse", "mixed"):
        return None
    return (
        f"warning: fit found for {run} that {own.name}, {own.searched}, is {own.finding}; "
        f"{keep_old(section.results)} See {run / 'report.json'}"
    )
