"""`nobackfill run`: a lineage of generations by every method, over seeds; and its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.output import JsonOption, for_people

if TYPE_CHECKING:
    from nobackfill.experiments.config import ScenarioConfig
    from nobackfill.reports.document import Report


def run(
    scenario: Annotated[Path, typer.Argument(help="YAML file with the generations and their configs.")],
    out: Annotated[Path, typer.Option(help="Folder for the report and the run folders.", show_default=False)],
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds, instead of the scenario's.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Run only these methods, such as bct,bt2; independent always runs.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of every run config, such as epochs=2.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Train a lineage of generations with each method, and report how every generation searches every older gallery.

    Finished runs in --out are reused if their config is the same, and stopped runs are resumed; a larger --seeds adds
    seeds. A run of the scenario may set its own `seeds`. The scenario sets `old`, `independent` and `seed` of all run
    configs.

    Example: `nobackfill run configs/cifar100/scenario.yaml --seeds 1 --out runs/cifar100`

    Example: `nobackfill run configs/cifar100/scenario.yaml --seeds 10 --methods bct,bt2 --out runs/cifar100`
    """
    from nobackfill.experiments.config import load_scenario, only_methods

    lineage = load_scenario(scenario, [f"seeds={seeds}"] if seeds else None)
    if methods is not None:
        lineage = only_methods(lineage, [name.strip() for name in methods.split(",")])
    report(lineage.with_changes(overrides or []), out, json_)


def report(scenario: ScenarioConfig, out: Path, json_: bool) -> None:
    """Run a scenario, write its report to `out` and print its tables, or the report as JSON."""
    from nobackfill.experiments.report import scenario_report

    with for_people(json_):
        done = scenario_report(scenario, out)
        _print(done, scenario, out)
    if json_:
        typer.echo(done.to_json(), nl=False)


def _print(done: Report, scenario: ScenarioConfig, out: Path) -> None:
    from nobackfill.evaluation.scores import DECISIVE, MAIN, title
    from nobackfill.experiments.report import LEARNING
    from nobackfill.reports.lineage import seeds_in_words
    from nobackfill.reports.lineage_tables import compatibility_table, lineage_table, pair_table
    from nobackfill.reports.rankings import ranking_sentence
    from nobackfill.reports.tables import print_table

    print_table(lineage_table(done))
    if (of_pairs := pair_table(done)) is not None:
        print_table(of_pairs)
    if len(done.generations) > 2:
        print_table(compatibility_table(done))
    seeds = seeds_in_words(done)
    typer.echo(
        f"Scores: {seeds if scenario.seeds == 1 else f'mean ± standard deviation over {seeds}'}. "
        "Update gain: 0 is the status quo, 1 a full backfill;\n"
        f"self-accuracy loss: points below the independent model. Both on {title(MAIN)}."
    )
    for upgrade in done.upgrades:
        verdict = upgrade.result.verdict
        typer.echo(f"{upgrade.method}, {upgrade.old} → {upgrade.new}: {verdict.decision}. {verdict.reasons[0]}")
    for section in done.rankings:
        if section.query == done.generations[-1] and section.score in DECISIVE:
            typer.echo(ranking_sentence(section))
    learning = f", {LEARNING}" if (out / LEARNING).is_file() else ""
    typer.echo(f"{out}: report.json, matrix.png{learning} and the run folders, after {done.seconds:.0f} s")
