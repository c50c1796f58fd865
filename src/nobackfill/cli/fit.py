"""`nobackfill fit`: vectors of two models in, a map that makes them comparable and a verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.output import JsonOption
from nobackfill.cli.panels import ADVANCED

if TYPE_CHECKING:
    from nobackfill.maps import Direction, Fitted
    from nobackfill.reports.document import FitSection


def fit(
    out: Annotated[Path, typer.Option(help="Output run folder.", show_default=False)],
    old: Annotated[Path | None, typer.Option(help="Old vectors: .npy [n, d_o], or .parquet (id, vector).")] = None,
    new: Annotated[Path | None, typer.Option(help="The same items' new vectors: .npy [n, d], or .parquet.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Instead of --old and --new: a .parquet file with columns old, new; optional: id, label."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Class labels of the items, integers, .npy [n].")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="procrustes, ridge, low_rank, qdc, slerp, mlp, infonce, bt2, bt2_residual, fct, fastfill, "
            "lambda_orthogonal; repeatable. Default: procrustes, ridge, mlp, infonce, bt2."
        ),
    ] = None,
    side: Annotated[
        Path | None,
        typer.Option(
            help="For fct: a second vector stored beside each item's old one, .npy [n, d_s].", rich_help_panel=ADVANCED
        ),
    ] = None,
    direction: Annotated[str, typer.Option(help="to-old: map new queries; to-new: map stored vectors; both.")] = "both",
    test_old: Annotated[
        Path | None,
        typer.Option(help="Old vectors of held-out items. Default: a fraction of the pairs.", rich_help_panel=ADVANCED),
    ] = None,
    test_new: Annotated[
        Path | None, typer.Option(help="New vectors of the held-out items.", rich_help_panel=ADVANCED)
    ] = None,
    test_labels: Annotated[
        Path | None, typer.Option(help="Class labels of the held-out items.", rich_help_panel=ADVANCED)
    ] = None,
    test_side: Annotated[
        Path | None, typer.Option(help="Side vectors of the held-out items.", rich_help_panel=ADVANCED)
    ] = None,
    query_old: Annotated[
        Path | None,
        typer.Option(help="Old vectors of separate queries. Default: the held-out items.", rich_help_panel=ADVANCED),
    ] = None,
    query_new: Annotated[
        Path | None, typer.Option(help="New vectors of the separate queries.", rich_help_panel=ADVANCED)
    ] = None,
    relevant: Annotated[
        Path | None,
        typer.Option(
            help="Relevant items of each query: lists of ids (.json) or a boolean matrix (.npy).",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the pairs to hold out, at most 10,000 pairs.",
            show_default="0.2",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    extra_dim: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="BT²: extra dimensions k; repeat to try several.", show_default="32", rich_help_panel=ADVANCED
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(min=0, help="BT²: constant C; repeat to try several.", show_default="2", rich_help_panel=ADVANCED),
    ] = None,
    hidden: Annotated[
        int | None,
        typer.Option(min=1, help="Hidden units of the networks.", show_default="512", rich_help_panel=ADVANCED),
    ] = None,
    old_name: Annotated[
        str | None, typer.Option(help="Name of the old model. Default: the file's name.", rich_help_panel=ADVANCED)
    ] = None,
    new_name: Annotated[
        str | None, typer.Option(help="Name of the new model. Default: the file's name.", rich_help_panel=ADVANCED)
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the split and of training.", rich_help_panel=ADVANCED)
    ] = 0,
    old_model: Annotated[
        Path | None, typer.Option(help="Instead of --old and --new: the old model, such as sentence:FOLDER.")
    ] = None,
    new_model: Annotated[Path | None, typer.Option(help="With --old-model: the new model.")] = None,
    data: Annotated[str | None, typer.Option(help="With --old-model: what both models embed, as for `embed`.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="With --data: its split, train or test.", show_default="train", rich_help_panel=ADVANCED),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Fit maps and BT² on pairs of vectors, and assess whether any of them beats the status quo.

    Every method is assessed on held-out items and compared with the status quo (old model on both sides) and a full
    backfill (new model on both sides). The run folder holds the map into the old space that did best on validation
    pairs; the other maps are in its subfolder `methods`, all metrics in `report.json`.

    Example: `nobackfill fit --old old.npy --new new.npy --labels y.npy --out fits/upgrade`

    Example: `nobackfill fit --old-model sentence:OLD --new-model sentence:NEW --data texts.yaml --out fits/upgrade`

    Example: `nobackfill fit --pairs pairs.parquet --method bt2 --extra-dim 8 --extra-dim 64 --out fits/bt2`
    """
    from nobackfill.cli.fit_inputs import read_held, read_pairs
    from nobackfill.cli.fit_models import embedded_pairs
    from nobackfill.errors import ConfigError, MissingPackageError
    from nobackfill.files import require_new, write_text
    from nobackfill.maps import Settings
    from nobackfill.maps import fit as fit_pairs
    from nobackfill.maps.fits import CLOSED_FORMS, DEFAULT_FITS, default_fits, require_for
    from nobackfill.maps.fitting import ARRAYS
    from nobackfill.reports.document import Report, ReportSettings
    from nobackfill.reports.fits import draw_trade

    directions: dict[str, tuple[Direction, ...]] = {
        "to-old": ("to-old",), "to-new": ("to-new",), "both": ("to-old", "to-new"),
    }  # fmt: skip
    if direction not in directions:
        raise ConfigError(f"--direction {direction!r}: expected {', '.join(directions)}")
    if holdout is not None and not 0 < holdout < 1:
        raise ConfigError(f"--holdout {holdout}: expected a fraction between 0 and 1")
    if any(value <= 0 for value in scale or []):
        raise ConfigError("--scale: expected values above 0")
    if holdout is not None and not test_old is query_old is None:
        apart = "--query-old" if test_old is None else "--test-old"
        raise ConfigError(f"--holdout: {apart} names what is held out; leave one of them out")
    if split is not None and data is None:
        raise ConfigError("--split: goes with --data, which is missing; leave it out")
    require_new(out)
    methods: Sequence[str] | None = method or None
    if not method:
        try:
            require_for(DEFAULT_FITS)
        except MissingPackageError:
            methods = CLOSED_FORMS
            typer.echo(
                "PyTorch is not installed: fitting only procrustes and ridge; for mlp, infonce and bt2: "
                "pip install 'nobackfill[train]'",
                err=True,
            )
    taken = methods or default_fits(directions[direction])
    _refuse_unused(taken, {"extra_dims": extra_dim, "scales": scale, "hidden": hidden})
    arrays = Path(f"{out}.unfinished", ARRAYS)
    vectors_given = any(value is not None for value in (old, new, pairs, labels, side, old_name, new_name))
    given = embedded_pairs(old_model, new_model, data, split or "train", arrays, alone=not vectors_given) or read_pairs(
        old, new, pairs, labels, old_name, new_name, arrays, side
    )
    held, seen = read_held(given, test_old, test_new, test_labels, query_old, query_new, relevant, test_side)
    settings = Settings(tuple(extra_dim) if extra_dim else None, tuple(scale or (2.0,)), hidden or 512, seed)
    files: ReportSettings = {name: str(value) for name, value in given.pairs.__dict__.items() if value is not None}

    def write(fitted: Fitted, folder: Path) -> None:
        section = _section(fitted)
        write_text(folder / "report.json", Report(fit=section, settings=files).to_json())
        draw_trade(section, folder / "trade.png")

    fitted = fit_pairs(
        given.pairs,
        out,
        methods=methods,
        directions=directions[direction],
        settings=settings,
        held_fraction=holdout or 0.2,
        held=held,
        seen=seen,
        finish=write,
    )
    if json_:
        typer.echo((out / "report.json").read_text(encoding="utf-8"), nl=False)
    else:
        _print(_section(fitted), out)


def _refuse_unused(methods: Sequence[str], given: Mapping[str, object]) -> None:
    """Raise `ConfigError` for an option of `given`, by field of `Settings`, that none of the methods looks at."""
    from nobackfill.errors import ConfigError
    from nobackfill.maps.fits import FITS

    options = {"extra_dims": "--extra-dim", "scales": "--scale", "hidden": "--hidden"}
    for field, option in options.items():
        if given[field] is None or any(field in FITS[name].takes for name in methods if name in FITS):
            continue
        takers = ", ".join(name for name, one in FITS.items() if field in one.takes)
        raise ConfigError(f"{option}: only for --method {takers}; found {', '.join(methods)}; leave it out")


def _section(fitted: Fitted) -> FitSection:
    from nobackfill.reports.document import FitSection

    return FitSection(
        results=fitted.results,
        verdict=fitted.verdict,
        best=fitted.best,
        dropped=fitted.dropped,
        fitted_on_gallery=fitted.seen,
    )


def _print(section: FitSection, out: Path) -> None:
    """The table, and what it does not say."""
    from nobackfill.evaluation.candidates import published
    from nobackfill.reports.fits import fit_table
    from nobackfill.reports.summary import fit_summary
    from nobackfill.reports.tables import print_table

    print_table(fit_table(section))
    if (out / "trade.png").is_file():
        typer.echo(f"{out / 'trade.png'}: quality by number of dimensions")
    for line in section.kinds:
        typer.echo(line)
    if section.dropped:
        typer.echo(f"held-out queries left out because their vectors are among the fitted pairs: {section.dropped}")
    if section.fitted_on_gallery:
        typer.echo("The gallery searched here was used for fitting: results with a mapped gallery are optimistic.")
    for reason in section.verdict.reasons:
        typer.echo(reason)
    if (own := published(section.results, section.best)) and own.change:
        typer.echo(f"{out}: {own.name}, {own.searched}, {own.finding}")
    decision = section.verdict.decision
    typer.echo(f"Verdict: {decision}. {fit_summary(section).decision if decision == 'use it' else ''}".rstrip())
