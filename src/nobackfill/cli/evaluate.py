"""`nobackfill evaluate`: one run's queries against another run's gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.source import DATA_HELP, BadImageOption, SplitOption, WorkersOption, open_data


def evaluate(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file with query, gallery and data, instead of the options.")
    ] = None,
    query: Annotated[Path | None, typer.Option(help="Run folder of the query model.")] = None,
    gallery: Annotated[Path | None, typer.Option(help="Run folder of the gallery model. Default: the query's.")] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    split: SplitOption = "test",
    on_bad_image: BadImageOption = "fail",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here as well.")] = None,
    workers: WorkersOption = None,
) -> None:
    """Search a gallery embedded by one model with queries embedded by another.

    Every image is a query and a gallery item, and never finds itself. Where the models differ, the status quo
    (gallery model on both sides) and the full backfill (query model on both sides) stand beside it.

    Example: `nobackfill evaluate --query runs/digits/bt2 --gallery runs/digits/old --data digits`
    """
    from nobackfill.config import EvaluationConfig, parse_as, read_tree
    from nobackfill.errors import ConfigError
    from nobackfill.evaluation import retrieval_metrics
    from nobackfill.files import write_text
    from nobackfill.models import load
    from nobackfill.reports.figures import row, to_json
    from nobackfill.reports.tables import print_rows

    if config is not None:
        settings = parse_as(EvaluationConfig, read_tree(config), str(config))
        query, gallery = query or settings.query, gallery or settings.gallery
        data = data or str(config)
    if query is None or data is None:
        raise ConfigError("evaluate: expected --query and --data, or a config file; see nobackfill evaluate --help")
    gallery = gallery or query
    encoders = {"query": load(query), "gallery": load(gallery)}
    images, processes = open_data(data, split, on_bad_image, workers)
    same = encoders["query"].spec.fingerprint == encoders["gallery"].spec.fingerprint
    vectors = {"query": encoders["query"].encode_set(images, processes)}
    vectors["gallery"] = vectors["query"] if same else encoders["gallery"].encode_set(images, processes)
    pairs = [("query", "query")] if same else [("gallery", "gallery"), ("query", "gallery"), ("query", "query")]
    names = {"query": query, "gallery": gallery}
    rows = []
    for searched_with, searched in pairs:
        metrics = retrieval_metrics(
            vectors[searched_with], vectors[searched], images.labels, images.labels, exclude_self=True
        )
        rows.append(row(metrics, query=str(names[searched_with]), gallery=str(names[searched])))
    if json_file:
        write_text(json_file, to_json(rows))
    titles = ["self-test"] if same else ["status quo", "nothing backfilled", "all backfilled"]
    print_rows(rows, titles)
    specs = [encoders[side].spec for side in ("query", "gallery")]
    if not (specs[0].answers(specs[1]) or specs[1].answers(specs[0])):
        typer.echo("Neither model was trained against the other: expect chance where they meet.")
