"""Methods of unequal seeds, and several galleries of one model: what is compared with what."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table

from nobackfill.errors import DataError
from nobackfill.evaluation import compare
from nobackfill.evaluation.method_ranking import MethodRanking, rank_methods
from nobackfill.evaluation.retrieval import RetrievalMetrics, retrieval_metrics
from nobackfill.evaluation.scores import SCORES
from nobackfill.reports import matrices
from nobackfill.reports.document import RankingSection, Report, Search, UpgradeSection, parse_report
from nobackfill.reports.html import _matrices
from nobackfill.reports.lineage import seeds_of, summarise_cells, summarise_lineages
from nobackfill.reports.rankings import ranking_sentence
from nobackfill.reports.summary import summarise_report
from nobackfill.reports.tables import print_table

NAMES = ["old", "new"]
LABELS = np.random.default_rng(0).integers(0, 5, 150)


def search(query: str, gallery: str, method: str, seed: int, score: float) -> Search:
    scores = dict.fromkeys(SCORES, score)
    return Search(query=query, gallery=gallery, method=method, seed=seed, scores=scores, queries=9, without_match=0)


@pytest.fixture
def unequal() -> Report:
    """`few` has the first of three seeds, in which the old model is worst."""
    made = [search("old", "old", "independent", seed, (0.2, 0.4, 0.6)[seed]) for seed in range(3)]
    made += [search("new", cell, "independent", seed, 0.7) for seed in range(3) for cell in NAMES]
    made += [search("new", "old", "few", 0, 0.3), search("new", "new", "few", 0, 0.65)]
    return Report(
        generations=NAMES,
        searches=made,
        seeds=seeds_of(made),
        cells=summarise_cells(made, NAMES),
        lineages=summarise_lineages(made, NAMES),
    )


def test_a_method_is_held_against_the_status_quo_of_its_own_seeds(
    unequal: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    from matplotlib.axes import Axes

    original = Axes.text

    def text(axes: Axes, x: float, y: float, words: str, **rest: Any) -> object:
        drawn.append(words)
        return original(axes, x, y, words, **rest)

    monkeypatch.setattr(Axes, "text", text)
    matrices.draw_matrices(unequal, tmp_path / "m.png")
    assert "30.0\n(+10.0)" in drawn
    assert "20.0\nstatus quo" in drawn
    few = {each.method: each.lines for each in _matrices(unequal.searches, NAMES)}["few"]
    first, later = few["old"][0], few["new"][0]
    assert first is not None
    assert first.scores["top1"] == pytest.approx(0.2)
    assert later is not None
    assert later.change > 0


def test_the_table_of_rivals_shows_the_status_quo_of_all_seeds(
    unequal: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(unequal.to_json())
    script = Path(__file__).parents[2] / "benchmarks" / "rivals_table.py"
    module = runpy.run_path(str(script))
    monkeypatch.setitem(module["main"].__globals__, "upgrade_rows", lambda *_: ([], {}))
    monkeypatch.setattr(sys, "argv", ["rivals_table.py", str(tmp_path)])
    module["main"]()
    assert capsys.readouterr().out.startswith("old/old: 40.0/40.0/40.0")


def metrics(quality: float, seed: int) -> RetrievalMetrics:
    centres, noise = np.random.default_rng(8).normal(size=(5, 6)), np.random.default_rng(seed).normal(size=(150, 6))
    vectors = quality * centres[LABELS] + noise
    return retrieval_metrics(vectors, vectors, LABELS, LABELS, exclude_self=True)


def test_a_leader_that_is_worse_on_common_seeds_is_not_called_better() -> None:
    def sentence(ranking: MethodRanking) -> str:
        return ranking_sentence(RankingSection(query="new", gallery="old", score="top1", ranking=ranking))

    poor = {seed: metrics(0.2, seed) for seed in (1, 2)}
    ranking = rank_methods({"few": {0: metrics(0.7, 0)}, "many": {0: metrics(1.5, 3), **poor}}, "top1")
    assert ranking.methods[0].method == "few"
    assert "few leads with" in sentence(ranking)
    assert "; better than it over the seeds they share: many " in sentence(ranking)
    ranking = rank_methods({"good": {0: metrics(1.5, 0)}, "bad": {0: metrics(0.2, 1)}}, "top1")
    assert sentence(ranking).endswith("; better than all others (one seed; others may differ).")
    alone = sentence(rank_methods({"good": {0: metrics(1.5, 0)}}, "top1"))
    assert alone.startswith("new/old, top-1: good alone, ")


def vectors(quality: float, seed: int) -> Any:
    centres, noise = np.random.default_rng(9).normal(size=(5, 8)), np.random.default_rng(seed).normal(size=(150, 8))
    return (quality * centres[LABELS] + noise).astype(np.float32)


def step(old: Any, new: Any, old_name: str, **options: Any) -> UpgradeSection:
    result = compare(old, new, LABELS, exclude_self=True, replicates=200, **options)
    return UpgradeSection(old=old_name, new="c", result=result)


def test_the_first_screen_decides_on_the_step_from_the_newest_gallery() -> None:
    noise = vectors(0.0, 7)
    upgrades = [step(vectors(0.3, 1), vectors(1.5, 2), "a"), step(vectors(1.5, 3), noise, "b")]
    searches = [search("c", "b", "", 0, 0.1)]
    summary = summarise_report(Report(generations=["a", "b", "c"], searches=searches, upgrades=upgrades))
    assert summary is not None
    assert (summary.name, summary.verdict) == ("b → c", "do not ship")
    assert summary.others[0].startswith("a → c: ship, top-1 +")


def test_an_upgrade_without_a_gain_has_none_in_the_cells() -> None:
    """The independent model is hardly above the status quo: a ratio to that would be of any size."""
    made = [search("old", "old", "independent", 0, 0.5)]
    made += [search("new", cell, name, 0, score) for name, cell, score in (
        ("independent", "new", 0.5001), ("independent", "old", 0.1), ("bt2", "old", 0.52), ("bt2", "new", 0.5)
    )]  # fmt: skip
    result = compare(vectors(0.5, 1), vectors(0.6, 2), LABELS, exclude_self=True, replicates=100)
    upgrade = UpgradeSection(method="bt2", old="old", new="new", result=result)
    assert result.gain["top1"] is None
    gains = [
        {(each.score, each.method, each.query, each.gallery): each.update_gain for each in summarise_cells(*known)}[
            "top1", "bt2", "new", "old"
        ]
        for known in ((made, NAMES), (made, NAMES, [upgrade]))
    ]
    assert gains[0] is not None
    assert (gains[0].mean or 0) > 100
    assert gains[1] is None


def test_what_pages_would_stumble_over_is_refused(unequal: Report) -> None:
    tree = json.loads(unequal.to_json())
    tree["cells"] = [each for each in tree["cells"] if (each["score"], each["method"]) != ("top1", "few")]
    with pytest.raises(DataError, match="cells: few old old: expected the scores top1"):
        parse_report(tree, "r")
    tree = json.loads(Report(generations=["a", "c"], upgrades=[step(vectors(0.3, 1), vectors(1, 2), "a")]).to_json())
    tree["upgrades"][0]["result"]["verdict"]["decision"] = "use it"
    with pytest.raises(DataError, match="verdict: expected one of ship, ship and backfill, do not ship"):
        parse_report({**tree, "searches": []}, "r")


def test_long_names_are_printed_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    for heading in ("method", "score"):
        table.add_column(heading, no_wrap=True)
    table.add_row("g" * 300, "12.3")
    print_table(table)
    printed = capsys.readouterr().out
    assert "g" * 300 in printed
    assert "12.3" in printed
