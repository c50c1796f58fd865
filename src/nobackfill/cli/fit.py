"""`nobackfill fit`: vectors of two models in, a map that makes them comparable and a verdict out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def fit(
    out: Annotated[Path, typer.Option(help="Run folder to write.", show_default=False)],
    old: Annotated[Path | None, typer.Option(help="Old vectors: .npy [n, d_o], or .parquet (id, vector).")] = None,
    new: Annotated[Path | None, typer.Option(help="The same items' new vectors: .npy [n, d], or .parquet.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Instead: one .parquet file with columns old, new, and maybe id, label.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Class numbers of the items, .npy [n].")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="procrustes, ridge, mlp, infonce, bt2, bt2_residual; repeatable. Default: the first five."),
    ] = None,
    direction: Annotated[
        str, typer.Option(help="to-old: map new queries; to-new: map the stored vectors; both.")
    ] = "both",
    test_old: Annotated[
        Path | None, typer.Option(help="Held-out items, old vectors. Default: a share of the pairs.")
    ] = None,
    test_new: Annotated[Path | None, typer.Option(help="Held-out items, new vectors.")] = None,
    test_labels: Annotated[Path | None, typer.Option(help="Held-out items, class numbers.")] = None,
    query_old: Annotated[
        Path | None, typer.Option(help="Queries that are no items, old vectors. Default: the held-out items.")
    ] = None,
    query_new: Annotated[Path | None, typer.Option(help="The same queries, new vectors.")] = None,
    relevant: Annotated[
        Path | None, typer.Option(help="Items each query looks for: lists of ids (.json) or a boolean table (.npy).")
    ] = None,
    holdout: Annotated[float, typer.Option(help="Fraction of the pairs to assess by, at most 10,000.")] = 0.2,
    extra_dim: Annotated[
        list[int] | None, typer.Option(min=0, help="BT²: k; repeat it to try several.", show_default="32")
    ] = None,
    scale: Annotated[
        list[float] | None, typer.Option(min=0, help="BT²: C; repeat it to try several.", show_default="2")
    ] = None,
    hidden: Annotated[int, typer.Option(min=1, help="Units of the small net of mlp and bt2_residual.")] = 512,
    old_name: Annotated[str | None, typer.Option(help="Name of the old model. Default: its file's.")] = None,
    new_name: Annotated[str | None, typer.Option(help="Name of the new model. Default: its file's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of training.")] = 0,
) -> None:
    """Fit maps and BT² on pairs of vectors, and say whether any of them beats doing nothing.

    Every method is assessed on items that none was fitted on, and compared with the status quo (old model on both
    sides) and a full backfill (new model on both sides). The run folder is that of the map into the old space that did
    best on validation pairs; the others are in its folder `methods`, all metrics in `report.json`.

    Example: `nobackfill fit --old old.npy --new new.npy --labels y.npy --out fits/upgrade`

    Example: `nobackfill fit --pairs pairs.parquet --method bt2 --extra-dim 8 --extra-dim 64 --out fits/bt2`
    """
    from nobackfill.cli.fit_inputs import read_held, read_pairs
    from nobackfill.errors import ConfigError, MissingPackageError
    from nobackfill.files import require_new, write_text
    from nobackfill.maps import Settings
    from nobackfill.maps import fit as fit_pairs
    from nobackfill.maps.fits import CLOSED_FORMS, DEFAULT_FITS, require_for
    from nobackfill.maps.fitting import ARRAYS
    from nobackfill.reports.document import FitSection, Report, ReportSettings
    from nobackfill.reports.fits import draw_trade, fit_table
    from nobackfill.reports.tables import print_table

    directions = {"to-old": ("to-old",), "to-new": ("to-new",), "both": ("to-old", "to-new")}
    if direction not in directions:
        raise ConfigError(f"--direction {direction!r}: expected {', '.join(directions)}")
    if not 0 < holdout < 1:
        raise ConfigError(f"--holdout {holdout}: expected a share between 0 and 1")
    if any(value <= 0 for value in scale or []):
        raise ConfigError("--scale: expected values above 0")
    require_new(out)
    methods: Sequence[str] = method or DEFAULT_FITS
    if not method:
        try:
            require_for(methods)
        except MissingPackageError:
            methods = CLOSED_FORMS
            typer.echo(
                "Without PyTorch only procrustes and ridge are fitted; for mlp, infonce and bt2: "
                "pip install 'nobackfill[train]'",
                err=True,
            )
    given = read_pairs(old, new, pairs, labels, old_name, new_name, Path(f"{out}.unfinished", ARRAYS))
    held, seen = read_held(given, test_old, test_new, test_labels, query_old, query_new, relevant)
    settings = Settings(tuple(extra_dim) if extra_dim else None, tuple(scale or (2.0,)), hidden, seed)
    fitted = fit_pairs(
        given.pairs,
        out,
        methods=methods,
        directions=directions[direction],  # type: ignore[arg-type]
        settings=settings,
        held_fraction=holdout,
        held=held,
        seen=seen,
    )
    section = FitSection(
        results=fitted.results,
        verdict=fitted.verdict,
        best=fitted.best,
        dropped=fitted.dropped,
        fitted_on_gallery=fitted.seen,
    )
    files: ReportSettings = {name: str(value) for name, value in given.pairs.__dict__.items() if value is not None}
    write_text(out / "report.json", Report(fit=section, settings=files).to_json())
    print_table(fit_table(section))
    if draw_trade(section, out / "trade.png"):
        typer.echo(f"{out / 'trade.png'}: what dimensions buy")
    if fitted.dropped:
        typer.echo(f"{fitted.dropped} held-out queries left out: their vectors stand among the fitted pairs.")
    if fitted.seen:
        typer.echo("The gallery searched here is what was fitted on: mapped galleries look better than others will.")
    if not section.labelled:
        typer.echo("No labels or relevance: all that shows is how far a search agrees with a full backfill's.")
    for reason in fitted.verdict.reasons:
        typer.echo(reason)
    typer.echo(f"{out}: {fitted.best}; {fitted.verdict.decision}")
