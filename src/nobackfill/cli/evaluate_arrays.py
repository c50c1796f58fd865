"""`nobackfill evaluate` on plain arrays: vectors from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import typer

from nobackfill.arrays import Array
from nobackfill.cli.vectors import as_labels, read_array, read_relevant, read_texts
from nobackfill.errors import ConfigError
from nobackfill.evaluation import RetrievalMetrics, assess
from nobackfill.evaluation.compare import Protocol, search_upgrade
from nobackfill.evaluation.distances import Distance
from nobackfill.progress import note
from nobackfill.reports.document import Report, ReportSettings, Search, UpgradeSection
from nobackfill.reports.examples import ItemSource, flip_examples
from nobackfill.reports.tables import print_searches
from nobackfill.reports.upgrades import print_upgrade


@dataclass(frozen=True)
class Arrays:
    """The files beside query and gallery; see the verb's options of the same names."""

    query_labels: Path | None = None
    gallery_labels: Path | None = None
    relevant: Path | None = None
    old_query: Path | None = None
    new_gallery: Path | None = None
    query_run: Path | None = None
    gallery_run: Path | None = None
    query_texts: Path | None = None
    gallery_texts: Path | None = None
    exclude_self: bool = False

    def first_given(self) -> str:
        """The first option that was given, as it is typed."""
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return f"--{given[0].replace('_', '-')}" if given else ""


def evaluate_arrays(query: Path, gallery: Path, files: Arrays, distance: Distance = "cosine") -> Report:
    """Search, print, and return the report.

    Raises:
        ConfigError, DataError: for files that cannot be read, and arrays that do not belong together.
    """
    if files.old_query is None and (files.query_texts or files.gallery_texts):
        option = "--query-texts" if files.query_texts else "--gallery-texts"
        raise ConfigError(
            f"{option}: shown with the answers that an upgrade changes, which takes --old-query; add it, or leave "
            f"{option} out"
        )
    vectors = _read_vectors(query, gallery, files)
    _note_selves(query, gallery, files)
    labels = {
        side: read_array(path, f"--{side}-labels") if path else None
        for side, path in (("query", files.query_labels), ("gallery", files.gallery_labels))
    }
    relevant = read_relevant(files.relevant, "--relevant") if files.relevant else None
    texts = {
        side: read_texts(path, len(vectors[side]), f"--{side}-texts") if path else None
        for side, path in (("query", files.query_texts), ("gallery", files.gallery_texts))
    }
    protocol = Protocol(labels["query"], labels["gallery"], relevant, files.exclude_self, distance)
    options = {field.name: getattr(files, field.name) for field in fields(files)}
    settings: ReportSettings = {name: str(value) for name, value in options.items() if value not in (None, False)}
    settings |= {"query": str(query), "gallery": str(gallery)}
    report = Report(generations=[str(gallery), str(query)], distance=distance, settings=settings)
    if files.old_query is None:
        metrics = protocol.search(vectors["query"], vectors["gallery"])
        searches = [Search.of(metrics, str(query), str(gallery))]
        print_searches(searches, ["search"])
        _print_more(metrics)
        return report.model_copy(update={"searches": searches})
    old = vectors["old_query"], vectors["gallery"]
    cells, curve = search_upgrade(protocol, old, (vectors["query"], vectors.get("new_gallery")))
    classes = {side: as_labels(labels[side]) for side in ("query", "gallery")}
    upgrade = assess([cells], [curve] if curve else [], classes["query"])
    print_upgrade(upgrade, str(gallery), str(query))
    shown = {side: ItemSource(classes[side], texts=texts[side]) for side in ("query", "gallery")}
    examples = flip_examples(
        cells["old/old"], cells["new/old"], old, (vectors["query"], vectors["gallery"]),
        shown["query"], shown["gallery"],
        exclude_self=files.exclude_self, distance=distance,
    )  # fmt: skip
    names = {
        "old/old": (files.old_query, gallery),
        "new/old": (query, gallery),
        "new/new": (query, files.new_gallery),
    }
    searches = [Search.of(metrics, str(names[cell][0]), str(names[cell][1])) for cell, metrics in cells.items()]
    section = UpgradeSection(old=str(gallery), new=str(query), result=upgrade, examples=examples)
    return report.model_copy(update={"searches": searches, "upgrades": [section]})


def _read_vectors(query: Path, gallery: Path, files: Arrays) -> dict[str, Array]:
    """Arrays by option, embedded by their fitted runs where there are some."""
    if files.gallery_run and files.old_query:
        raise ConfigError("--gallery-run: goes without --old-query, since old queries cannot search mapped vectors")
    vectors = {"query": read_array(query, "--query"), "gallery": read_array(gallery, "--gallery")}
    for option, path in (("old_query", files.old_query), ("new_gallery", files.new_gallery)):
        if path is not None:
            vectors[option] = read_array(path, f"--{option.replace('_', '-')}")
    for run, options in ((files.query_run, ("query", "new_gallery")), (files.gallery_run, ("gallery",))):
        if run is not None:
            vectors |= {option: _embedded(run, vectors[option]) for option in options if option in vectors}
    if files.new_gallery and not files.old_query:
        raise ConfigError("--new-gallery: needs --old-query too; an upgrade is compared with the status quo")
    return vectors


def _note_selves(query: Path, gallery: Path, files: Arrays) -> None:
    """Say so where queries and gallery are one file, and every query will find itself."""
    if files.exclude_self:
        return
    for asked, searched, options in (
        (query, gallery, "--query and --gallery"),
        (files.old_query, gallery, "--old-query and --gallery"),
        (query, files.new_gallery, "--query and --new-gallery"),
    ):
        if asked is not None and searched is not None and asked.samefile(searched):
            note(f"{options} are the same file, {asked}: each query finds itself; --exclude-self leaves it out")
            return


def _embedded(run: Path, rows: Array) -> Array:
    from nobackfill.models import load

    encoder = load(run)
    if encoder.spec.modality != "vector":
        raise ConfigError(f"--query-run, --gallery-run: {run} embeds {encoder.spec.modality}s, not vectors")
    return encoder.encode(rows)


def _print_more(metrics: RetrievalMetrics) -> None:
    for name, value in (
        *((f"recall@{k}", v) for k, v in metrics.recall.items()),
        ("mAP@R", metrics.mean_ap_at_r),
        *((f"nDCG@{k}", v) for k, v in metrics.ndcg.items()),
    ):
        typer.echo(f"{name}: {100 * value:.1f} %")
    typer.echo("To compare with the status quo, give --old-query: the queries embedded by the gallery's model.")
