"""`nobackfill evaluate` on plain arrays: vectors from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import typer

from nobackfill.cli.vectors import as_labels, read_array, read_relevant, read_texts
from nobackfill.errors import ConfigError
from nobackfill.evaluation import backfilling_curve, judge, retrieval_metrics
from nobackfill.models import load
from nobackfill.reports.examples import Items, flip_examples
from nobackfill.reports.figures import row
from nobackfill.reports.tables import print_rows
from nobackfill.reports.upgrades import plain, print_upgrade


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


def _embedded(run: Path, rows: Any) -> Any:
    encoder = load(run)
    if encoder.spec.modality != "vector":
        raise ConfigError(f"--query-run, --gallery-run: {run} takes {encoder.spec.modality}s, not vectors")
    return encoder.encode(rows)


def evaluate_arrays(query: Path, gallery: Path, files: Arrays) -> dict[str, Any]:
    """Search, print, and return what the JSON file holds.

    Raises:
        ConfigError, DataError: for files that cannot be read, and arrays that do not belong together.
    """
    vectors = {"query": read_array(query, "--query"), "gallery": read_array(gallery, "--gallery")}
    for option, path in (("old_query", files.old_query), ("new_gallery", files.new_gallery)):
        if path is not None:
            vectors[option] = read_array(path, f"--{option.replace('_', '-')}")
    for run, options in ((files.query_run, ("query", "new_gallery")), (files.gallery_run, ("gallery",))):
        if run is not None:
            vectors |= {option: _embedded(run, vectors[option]) for option in options if option in vectors}
    if files.new_gallery and not files.old_query:
        raise ConfigError("--new-gallery: an upgrade is judged against the status quo; give --old-query too")
    labels = {
        side: read_array(path, f"--{side}-labels") if path else None
        for side, path in (("query", files.query_labels), ("gallery", files.gallery_labels))
    }
    relevant = read_relevant(files.relevant, "--relevant") if files.relevant else None
    how: dict[str, Any] = {"relevant": relevant, "exclude_self": files.exclude_self}
    texts = {
        side: read_texts(path, len(vectors[side]), f"--{side}-texts") if path else None
        for side, path in (("query", files.query_texts), ("gallery", files.gallery_texts))
    }

    def searched(one: str, other: str) -> Any:
        return retrieval_metrics(vectors[one], vectors[other], labels["query"], labels["gallery"], **how)

    document: dict[str, Any] = {"generations": [str(gallery), str(query)], "upgrades": [], "training": {}}
    document["settings"] = {field.name: str(getattr(files, field.name)) for field in fields(files)}
    document["settings"] |= {"query": str(query), "gallery": str(gallery)}
    after = searched("query", "gallery")
    rows = [row(after, query=str(query), gallery=str(gallery))]
    if files.old_query is None:
        print_rows(rows, ["search"])
        for name, value in (*((f"recall@{k}", v) for k, v in after.recall.items()), ("mAP@R", after.mean_ap_at_r)):
            typer.echo(f"{name}: {100 * value:.1f} %")
        for k, value in after.ndcg.items():
            typer.echo(f"nDCG@{k}: {100 * value:.1f} %")
        typer.echo("Better than doing nothing? Give --old-query, the same queries by the gallery's model, to know.")
        return {**document, "rows": rows}
    cells = {"old/old": searched("old_query", "gallery"), "new/old": after}
    rows = [row(cells["old/old"], query=str(files.old_query), gallery=str(gallery)), *rows]
    curves = []
    if "new_gallery" in vectors:
        cells["new/new"] = searched("query", "new_gallery")
        rows.append(row(cells["new/new"], query=str(query), gallery=str(files.new_gallery)))
        curves.append(
            backfilling_curve(
                vectors["query"], vectors["gallery"], vectors["new_gallery"], labels["query"], labels["gallery"], **how
            )
        )
    classes = as_labels(labels["query"])
    upgrade = judge([cells], curves, classes)
    print_upgrade(upgrade, str(gallery), str(query))
    shown = {side: Items(as_labels(labels[side]), texts=texts[side]) for side in ("query", "gallery")}
    examples = flip_examples(
        cells["old/old"], after, (vectors["old_query"], vectors["gallery"]), (vectors["query"], vectors["gallery"]),
        shown["query"], shown["gallery"],
        exclude_self=files.exclude_self,
    )  # fmt: skip
    document["upgrades"] = [
        {"method": "", "old": str(gallery), "new": str(query), **plain(upgrade), "examples": examples}
    ]
    return {**document, "rows": rows}
