"""A scenario from its config to its report."""

from __future__ import annotations

import time
from pathlib import Path

from nobackfill.errors import RunError
from nobackfill.experiments.assessment import ScenarioAssessment
from nobackfill.experiments.config import ScenarioConfig
from nobackfill.experiments.scenario import run_scenario, scenario_test_set
from nobackfill.files import write_text
from nobackfill.reports.document import Report, Search
from nobackfill.reports.lineage import seeds_of, summarise_cells, summarise_lineages
from nobackfill.reports.matrices import draw_matrices
from nobackfill.reports.training import draw_history, draw_learning, history

LEARNING = "learning.png"


def scenario_report(scenario: ScenarioConfig, out: Path) -> Report:
    """Train what is missing, search, assess; writes `report.json`, `matrix.png` and `learning.png` to `out`.

    Raises:
        RunError: if `out` holds something else.
        ConfigError: for anything wrong with any run of the scenario.
    """
    if out.is_dir() and any(out.iterdir()) and not any(out.glob("seed*")):
        raise RunError(f"{out}: not empty, and contains no runs of a scenario; choose another --out")
    started = time.perf_counter()
    names = list(scenario.generations)
    test = scenario_test_set(scenario)
    assessment, searches, training = ScenarioAssessment(test, names), [], {}
    for each in run_scenario(scenario, out, test):
        searches.append(Search.of(each.metrics, each.query, each.gallery, each.method, each.seed, pairs=test.pairs))
        assessment.add(each.method, each.seed, each.query, each.gallery, each.metrics, each.new, each.old)
        if (name := each.run.relative_to(out).as_posix()) not in training:
            training[name] = history(each.run)
            if not (each.run / "training.png").exists():
                draw_history(each.run)
    upgrades = assessment.upgrades()
    report = Report(
        generations=names,
        searches=searches,
        upgrades=upgrades,
        seeds=seeds_of(searches),
        cells=summarise_cells(searches, names, upgrades),
        lineages=summarise_lineages(searches, names),
        rankings=assessment.rankings(),
        training=training,
        seconds=round(time.perf_counter() - started, 1),
        settings={"out": str(out), "seeds": scenario.seeds, "set": list(scenario.set)},
    )
    write_text(out / "report.json", report.to_json())
    draw_matrices(report, out / "matrix.png")
    draw_learning(training, names[-1], out / LEARNING)
    return report
