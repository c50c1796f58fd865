"""`nobackfill evaluate` on run folders: models on a labelled data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nobackfill.cli.source import open_data
from nobackfill.data import Samples, VectorSamples, for_old_model
from nobackfill.errors import ConfigError
from nobackfill.evaluation import RetrievalMetrics, assess, average_compatibility, average_score
from nobackfill.evaluation.assess import upgrade_cells
from nobackfill.evaluation.compare import Protocol
from nobackfill.evaluation.distances import Distance
from nobackfill.evaluation.scores import MAIN, PAIR_SCORES, title
from nobackfill.experiments.search_set import SearchSet, Sides
from nobackfill.models import load
from nobackfill.reports.document import Report, ReportSettings, Search, UpgradeSection
from nobackfill.reports.examples import flip_examples
from nobackfill.reports.tables import print_searches
from nobackfill.reports.training import history
from nobackfill.reports.upgrades import print_upgrade

if TYPE_CHECKING:
    from nobackfill.models import Encoder

Searches = dict[tuple[str, str], RetrievalMetrics]
"""By query and gallery model."""


def evaluate_runs(
    query: Path,
    galleries: list[Path],
    independent: Path | None,
    data: str,
    split: str,
    on_bad_image: str,
    workers: int | None,
    distance: Distance = "cosine",
) -> Report:
    """Search every older gallery with every newer model, print, and return the report.

    The newest model is the query's; each gallery's model is taken as the old one of an upgrade to it.
    """
    encoders = {str(run): load(run) for run in [*dict.fromkeys(each for each in galleries if each != query), query]}
    names = list(encoders)
    specs = [encoder.spec for encoder in encoders.values()]
    if len({spec.fingerprint for spec in specs}) == 1:
        names = names[-1:]
    newer = any(spec.compatible_with(specs[-1]) for spec in specs[:-1])  # a gallery's model than the query's
    if independent is not None and (len(names) == 1 or newer):
        raise ConfigError(
            f"--independent {independent}: the upper bound of an upgrade, but no --gallery is of an older model than "
            f"--query {query}; leave it out"
        )
    bound = None if independent is None else load(independent)
    samples, processes = open_data(data, split, on_bad_image, workers)
    searched = SearchSet(samples)
    seen = {**dict.fromkeys(names, SearchSet(for_old_model(samples))), names[-1]: searched}
    protocol = searched.protocol(distance)
    for name in names:
        _check_width(name, encoders[name], seen[name].samples, data)
    vectors = {name: seen[name].encode(encoders[name], processes) for name in names}
    cells: Searches = {
        (one, other): protocol.search(vectors[one][0], vectors[other][1])
        for i, one in enumerate(names)
        for other in names[: i + 1]
    }
    searches = [Search.of(metrics, one, other, pairs=searched.pairs) for (one, other), metrics in cells.items()]
    upgrades = []
    if len(names) == 1:
        print_searches(searches, ["self-test"])
    elif newer:
        print_searches(searches, _titles(cells))
        typer.echo("The gallery's model is newer than the query's: no upgrade to assess.")
    else:
        upper = None
        if bound is not None:
            upper = protocol.search(*searched.encode(bound, processes))
        for old in names[:-1]:
            upgrades.append(_assess_step(old, names[-1], protocol, cells, upper, vectors, searched))
            if not specs[-1].compatible_with(encoders[old].spec):
                typer.echo(
                    f"{names[-1]} was not trained to be compatible with {old}: its queries cannot search those vectors."
                )
        if len(names) > 2:
            print_searches(searches, _titles(cells))
            _print_lineage(names, cells)
    if searched.pairs:
        _print_pair_scores(searches)
    settings: ReportSettings = {
        "query": str(query), "galleries": [str(run) for run in galleries], "data": data, "split": split,
    }  # fmt: skip
    if independent is not None:
        settings["independent"] = str(independent)
    return Report(
        generations=names,
        searches=searches,
        upgrades=upgrades,
        training={name: lines for name in names if (lines := history(Path(name)))},
        distance=distance,
        settings=settings,
    )


def _check_width(name: str, encoder: Encoder, samples: Samples, data: str) -> None:
    """Raise `ConfigError` where a model on vectors takes others than those of the data."""
    if isinstance(samples, VectorSamples) and encoder.spec.preprocessing.input_shape != samples.vectors.shape[1:]:
        raise ConfigError(
            f"{name}: takes {encoder.spec.preprocessing.description}, but --data {data} has {samples.vectors.shape[1]} "
            "values for it; expected the newest run's config, with data.old_inputs for the older ones"
        )


def _assess_step(
    old: str,
    new: str,
    protocol: Protocol,
    searches: Searches,
    upper: RetrievalMetrics | None,
    vectors: Mapping[str, Sides],
    searched: SearchSet,
) -> UpgradeSection:
    """Assess and print the upgrade from one model to the newest."""
    cells = upgrade_cells(searches, old, new, upper)
    (old_queries, old_gallery), (new_queries, new_gallery) = vectors[old], vectors[new]
    curve = protocol.curve(new_queries, old_gallery, new_gallery)
    upgrade = assess([cells], [curve], *searched.classes)
    print_upgrade(upgrade, old, new)
    queries, gallery = searched.shown()
    examples = flip_examples(
        cells["old/old"], cells["new/old"], (old_queries, old_gallery), (new_queries, old_gallery), queries, gallery,
        exclude_self=protocol.exclude_self, distance=protocol.distance,
    )  # fmt: skip
    return UpgradeSection(old=old, new=new, result=upgrade, examples=examples)


def _print_pair_scores(searches: Iterable[Search]) -> None:
    """Recall and reciprocal rank, which searches of documents are usually told by."""
    for each in searches:
        means = (f"{title(key)} {each.scores[key]:.1%}" for key in PAIR_SCORES)
        typer.echo(f"{each.query} → {each.gallery}: {', '.join(means)}")


def _print_lineage(names: list[str], cells: Searches) -> None:
    matrix = [[cells[one, other].scores()[MAIN] for other in names[: i + 1]] for i, one in enumerate(names)]
    compatible, mean = average_compatibility(matrix), 100 * average_score(matrix)
    typer.echo(f"Over the lineage, {title(MAIN)}: AC {compatible:.2f}, AM {mean:.1f} %.")


def _titles(cells: Searches) -> list[str]:
    return ["self-test" if one == other else "cross-test" for one, other in cells]
