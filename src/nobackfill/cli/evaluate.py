"""`nobackfill evaluate`: searches, of run folders or plain arrays, and what an upgrade gains and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.output import JsonOption, for_people
from nobackfill.cli.panels import ADVANCED
from nobackfill.cli.source import DATA_HELP, BadImageOption, SplitOption, WorkersOption, given_for_data


def evaluate(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file with query, gallery and data, instead of options.")
    ] = None,
    query: Annotated[
        Path | None, typer.Option(help="Run folder of the new model (or sentence:FOLDER), or its query vectors (.npy).")
    ] = None,
    gallery: Annotated[
        list[Path] | None,
        typer.Option(
            help="Run folder of the gallery's model, or sentence:FOLDER (repeat it, oldest first); or vectors (.npy)."
        ),
    ] = None,
    independent: Annotated[
        Path | None, typer.Option(help="Run folder of an independently trained new model: the upper bound.")
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    split: SplitOption = "test",
    on_bad_image: BadImageOption = "fail",
    query_labels: Annotated[
        Path | None, typer.Option(help="Arrays: class labels of the queries, integers (.npy).")
    ] = None,
    gallery_labels: Annotated[
        Path | None, typer.Option(help="Arrays: class labels of the gallery items, integers (.npy).")
    ] = None,
    relevant: Annotated[
        Path | None,
        typer.Option(
            help="Arrays: relevant items, instead of labels: a boolean matrix (.npy) or lists (.json).",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    old_query: Annotated[
        Path | None, typer.Option(help="Arrays: the queries embedded by the gallery's model: the status quo (.npy).")
    ] = None,
    new_gallery: Annotated[
        Path | None, typer.Option(help="Arrays: the gallery embedded by the query model: a full backfill (.npy).")
    ] = None,
    query_run: Annotated[
        Path | None,
        typer.Option(
            help="Arrays: a fitted run to apply to --query and --new-gallery first.", rich_help_panel=ADVANCED
        ),
    ] = None,
    gallery_run: Annotated[
        Path | None, typer.Option(help="Arrays: a fitted run to apply to --gallery first.", rich_help_panel=ADVANCED)
    ] = None,
    query_texts: Annotated[
        Path | None,
        typer.Option(help="Arrays: text file, one line per query, shown in the report.", rich_help_panel=ADVANCED),
    ] = None,
    gallery_texts: Annotated[
        Path | None,
        typer.Option(help="Arrays: text file, one line per item, shown in the report.", rich_help_panel=ADVANCED),
    ] = None,
    exclude_self: Annotated[
        bool,
        typer.Option(
            "--exclude-self",
            help="Arrays: query i is item i; leave it out of its own results.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    distance: Annotated[
        str | None,
        typer.Option(
            help="cosine, or l2: Euclidean distance, vectors not normalised. Default: the config's, or cosine.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the report to this file (JSON), for `nobackfill report`.")
    ] = None,
    json_: JsonOption = False,
    workers: WorkersOption = None,
) -> None:
    """Search a gallery embedded by one model with queries embedded by another, and assess the upgrade.

    With run folders, every image of --data is both a query and a gallery item, and is left out of its own results.
    Where query and gallery model differ, the search is compared with the status quo (gallery model on both sides) and
    with a full backfill (query model on both sides); every change has a 95 % interval. With arrays, --old-query gives
    the status quo and --new-gallery the full backfill.

    Example: `nobackfill evaluate --query runs/digits/bt2 --gallery runs/digits/old --data digits --out report.json`

    Example: `nobackfill evaluate --query q.npy --gallery g.npy --query-labels y.npy --gallery-labels z.npy`
    """
    from nobackfill.cli.evaluate_arrays import Arrays, evaluate_arrays
    from nobackfill.cli.evaluate_runs import evaluate_runs
    from nobackfill.config import EvaluationConfig, parse_as, read_tree
    from nobackfill.errors import ConfigError
    from nobackfill.evaluation.distances import check_distance
    from nobackfill.files import require_files, write_text
    from nobackfill.progress import note

    old_form = None
    if json_ and config is not None and config.suffix == ".json":  # as it was before 0.2: --json FILE
        note(f"--json {config}: taken as --out {config}; --json alone prints the report")
        old_form, config, json_ = config, None, False
    outs = [each for each in (out, old_form) if each is not None]
    require_files(outs)  # now, not after the searches
    if config is not None:
        settings = parse_as(EvaluationConfig, read_tree(config), str(config))
        query, gallery = query or settings.query, gallery or [settings.gallery or settings.query]
        data, distance = data or str(config), distance or settings.distance
    measure = check_distance(distance or "cosine")
    if query is None:
        raise ConfigError(
            "evaluate: expected --query and --data, or a config file, or arrays; see nobackfill evaluate --help"
        )
    arrays = Arrays(
        query_labels, gallery_labels, relevant, old_query, new_gallery, query_run, gallery_run,
        query_texts, gallery_texts, exclude_self,
    )  # fmt: skip
    if query.suffix == ".npy":
        for_runs = {
            "--data": data is not None,
            "--independent": independent is not None,
            **given_for_data(split, on_bad_image, workers),
        }
        for option, given in for_runs.items():
            if given:
                raise ConfigError(
                    f"{option}: works only with run folders, but --query {query} is an array; leave it out"
                )
        if not gallery or len(gallery) > 1:
            raise ConfigError("evaluate: with arrays, expected one --gallery FILE.npy")
        with for_people(json_):
            report = evaluate_arrays(query, gallery[0], arrays, measure)
    else:
        if data is None:
            raise ConfigError("evaluate: with run folders, expected --data; see nobackfill evaluate --help")
        if arrays != Arrays():
            raise ConfigError(
                f"evaluate: {arrays.first_given()} works only with arrays, but --query {query} is not a .npy file"
            )
        with for_people(json_):
            report = evaluate_runs(query, gallery or [query], independent, data, split, on_bad_image, workers, measure)
    for each in outs:
        write_text(each, report.to_json())
    if json_:
        typer.echo(report.to_json(), nl=False)
