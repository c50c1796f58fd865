"""`nobackfill evaluate` on run folders: models on a labelled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from nobackfill.cli.source import open_data
from nobackfill.evaluation import average_compatibility, average_score, backfilling_curve, judge, retrieval_metrics
from nobackfill.models import load
from nobackfill.reports.examples import Items, flip_examples
from nobackfill.reports.figures import row
from nobackfill.reports.tables import print_rows
from nobackfill.reports.training import history
from nobackfill.reports.upgrades import plain, print_upgrade


def evaluate_runs(
    query: Path,
    galleries: list[Path],
    independent: Path | None,
    data: str,
    split: str,
    on_bad_image: str,
    workers: int | None,
) -> dict[str, Any]:
    """Search every older gallery with every newer model, print, and return what the JSON file holds.

    The newest model is the query's; each gallery's model is judged as the old one of an upgrade to it.
    """
    encoders = {str(run): load(run) for run in dict.fromkeys([*galleries, query])}
    names = list(encoders)
    specs = [encoder.spec for encoder in encoders.values()]
    if len({spec.fingerprint for spec in specs}) == 1:
        names = names[-1:]
    bound = None if independent is None else load(independent)
    images, processes = open_data(data, split, on_bad_image, workers)
    vectors = {name: encoders[name].encode_set(images, processes) for name in names}
    labels = images.labels

    def searched(query: str, gallery: str) -> Any:
        return retrieval_metrics(vectors[query], vectors[gallery], labels, labels, exclude_self=True)

    cells = {(one, other): searched(one, other) for i, one in enumerate(names) for other in names[: i + 1]}
    rows = [row(metrics, query=one, gallery=other) for (one, other), metrics in cells.items()]
    new, upgrades = names[-1], []
    if len(names) == 1:
        print_rows(rows, ["self-test"])
    elif any(spec.compatible_with(specs[-1]) for spec in specs[:-1]):
        print_rows(rows, _titles(cells))
        typer.echo("The gallery's model is the newer one: no upgrade to judge.")
    else:
        if bound is not None:
            vectors["independent"] = bound.encode_set(images, processes)
        for old in names[:-1]:
            judged = {"old/old": cells[old, old], "new/old": cells[new, old], "new/new": cells[new, new]}
            if bound is not None:
                judged["independent"] = searched("independent", "independent")
            curve = backfilling_curve(vectors[new], vectors[old], vectors[new], labels, labels, exclude_self=True)
            upgrade = judge([judged], [curve], labels, images.class_names)
            print_upgrade(upgrade, old, new)
            if not specs[-1].compatible_with(encoders[old].spec):
                typer.echo(f"{new} was not trained against {old}: expect chance where they meet.")
            pairs = (vectors[old], vectors[old]), (vectors[new], vectors[old])
            shown = Items.of(images)
            examples = flip_examples(judged["old/old"], judged["new/old"], *pairs, shown, shown, exclude_self=True)
            upgrades.append({"method": "", "old": old, "new": new, **plain(upgrade), "examples": examples})
        if len(names) > 2:
            matrix = [[cells[one, other].cmc[1] for other in names[: i + 1]] for i, one in enumerate(names)]
            print_rows(rows, _titles(cells))
            compatible, mean = average_compatibility(matrix), 100 * average_score(matrix)
            typer.echo(f"Over the lineage, top-1: AC {compatible:.2f}, AM {mean:.1f} %.")
    return {
        "rows": rows,
        "generations": names,
        "upgrades": upgrades,
        "training": {name: lines for name in names if (lines := history(Path(name)))},
        "settings": {"query": str(query), "galleries": [str(run) for run in galleries], "data": data, "split": split},
    }


def _titles(cells: dict[tuple[str, str], Any]) -> list[str]:
    return ["self-test" if one == other else "cross-test" for one, other in cells]
