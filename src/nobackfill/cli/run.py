"""`nobackfill run`: a lineage of generations by every method, over seeds; and its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nobackfill.config import ScenarioConfig


def run(
    scenario: Annotated[Path, typer.Argument(help="YAML file with the generations and their configs.")],
    out: Annotated[Path, typer.Option(help="Folder for the report and the run folders.", show_default=False)],
    seeds: Annotated[int | None, typer.Option(min=1, help="Instead of the scenario's number of seeds.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of every run config, such as epochs=2.")
    ] = None,
) -> None:
    """Train a lineage of generations by each method, and report every generation's search in every older gallery.

    Runs that are in --out already are kept if their config is the same; one that was stopped is gone on with. A run
    config's own `old`, `independent` and `seed` are set by the scenario.

    Example: `nobackfill run configs/cifar100/scenario.yaml --seeds 1 --out runs/cifar100`
    """
    from nobackfill.config import load_scenario

    lineage = load_scenario(scenario, [f"seeds={seeds}"] if seeds else None)
    report(lineage.model_copy(update={"set": [*lineage.set, *(overrides or [])]}), out)


def report(scenario: ScenarioConfig, out: Path) -> None:
    """Run a scenario, print its tables, write `report.json` and the pictures to `out`."""
    import time

    from nobackfill.config import INDEPENDENT
    from nobackfill.errors import RunError
    from nobackfill.evaluation.verdict import JUDGED
    from nobackfill.files import write_text
    from nobackfill.reports.figures import row, to_json
    from nobackfill.reports.lineage import draw_matrices, lineage_table, long_table, summary
    from nobackfill.reports.rankings import ranking_sentence, ranking_values
    from nobackfill.reports.scenario import Judgements
    from nobackfill.reports.tables import print_table
    from nobackfill.reports.training import draw_history, draw_learning, history
    from nobackfill.reports.upgrades import plain
    from nobackfill.training.scenario import run_scenario, scenario_test_set

    if out.is_dir() and any(out.iterdir()) and not any(out.glob("seed*")):
        raise RunError(f"{out}: is not empty and holds no runs of a scenario; choose another --out")
    started = time.perf_counter()
    names = list(scenario.generations)
    test = scenario_test_set(scenario)
    judgements, rows, training = Judgements(test, names), [], {}
    for each in run_scenario(scenario, out, test):
        rows.append(row(each.metrics, method=each.method, seed=each.seed, query=each.query, gallery=each.gallery))
        judgements.add(each.method, each.seed, each.query, each.gallery, each.metrics, each.vectors)
        if str(name := each.run.relative_to(out)) not in training:
            training[str(name)] = history(each.run)
            if not (each.run / "training.png").exists():
                draw_history(each.run)
    upgrades = [
        {"method": step[0], "old": step[1], "new": step[2], **plain(upgrade), "examples": judgements.examples[step]}
        for step, upgrade in sorted(
            judgements.judged(), key=lambda judged: judged[0][0] == INDEPENDENT
        )  # the bound last
    ]
    rankings = judgements.rankings()
    seconds = round(time.perf_counter() - started, 1)
    figures = {"summary": summary(rows, names), "generations": names, "seconds": seconds}
    figures["rankings"] = list(map(ranking_values, rankings))
    settings = {"out": str(out), "seeds": scenario.seeds, "set": scenario.set}
    write_text(out / "report.json", to_json(rows, **figures, upgrades=upgrades, training=training, settings=settings))
    draw_matrices(rows, names, out / "matrix.png")
    learning = ", learning.png" if draw_learning(training, names[-1], out / "learning.png") else ""
    print_table(lineage_table(rows, names))
    if len(names) > 2:
        print_table(long_table(rows, names))
    spread = f"mean ± standard deviation over {scenario.seeds} seeds" if scenario.seeds > 1 else "one seed"
    typer.echo(
        f"Scores: {spread}. Update gain: 0 is doing nothing, 1 a full backfill;\n"
        "self-accuracy loss: points below the independent model. Both on top-1."
    )
    for upgrade in upgrades:
        step = f"{upgrade['method']}, {upgrade['old']} → {upgrade['new']}"
        typer.echo(f"{step}: {upgrade['verdict']['word']}. {upgrade['verdict']['reasons'][0]}")
    for ranked in rankings:
        if ranked[0] == names[-1] and ranked[2] in JUDGED:
            typer.echo(ranking_sentence(ranked))
    typer.echo(f"{out}: report.json, matrix.png{learning} and the run folders, after {seconds:.0f} s")
