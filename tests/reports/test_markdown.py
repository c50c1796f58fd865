from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nobackfill.cli.app import run
from nobackfill.data import ImageSamples
from nobackfill.errors import DataError
from nobackfill.evaluation import retrieval_metrics
from nobackfill.experiments.assessment import ScenarioAssessment
from nobackfill.experiments.search_set import SearchSet
from nobackfill.reports.document import Report, Search, parse_report
from nobackfill.reports.html import build_report
from nobackfill.reports.lineage import seeds_of, summarise_cells, summarise_lineages
from nobackfill.reports.markdown import build_markdown
from nobackfill.reports.matrices import draw_matrices
from nobackfill.reports.rankings import ranking_sentence
from nobackfill.reports.training import draw_learning


@pytest.fixture(scope="module")
def scenario() -> Report:
    """A report as `run` writes it, of two generations, two seeds and three methods: `good` is better than `bad`."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 30)
    centres = random.normal(size=(6, 8))
    pixels = random.integers(0, 256, (180, 8, 8, 3), np.uint8)
    images = ImageSamples(pixels, labels, tuple("abcdef"), "made")
    assessment, made = ScenarioAssessment(SearchSet(images), ["old", "new"]), []
    for seed in (0, 1):

        def vectors(quality: float) -> Any:
            return (quality * centres[labels] + random.normal(size=(180, 8))).astype(np.float32)

        old = vectors(0.5)
        models = {"independent": -vectors(1.5), "good": vectors(1.5), "bad": vectors(0.3)}
        searches = [("independent", "old", "old", old, old)]
        for method, new in models.items():
            searches += [(method, "new", "old", new, old), (method, "new", "new", new, new)]
        for method, query, gallery, queries, items in searches:
            metrics = retrieval_metrics(queries, items, labels, labels, exclude_self=True)
            assessment.add(method, seed, query, gallery, metrics, (queries, queries), (items, items))
            made.append(Search.of(metrics, query, gallery, method, seed))
    names = ["old", "new"]
    report = Report(
        generations=names,
        searches=made,
        seeds=seeds_of(made),
        cells=summarise_cells(made, names),
        lineages=summarise_lineages(made, names),
        upgrades=[each.model_copy(update={"examples": []}) for each in assessment.upgrades()],
        rankings=assessment.rankings(),
    )
    assert parse_report(json.loads(report.to_json()), "x") == report
    return report


def tables(text: str) -> list[list[list[str]]]:
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in text.strip().split("\n\n")
        if block.startswith("|")
    ]


def test_a_scenario_as_tables(scenario: Report) -> None:
    cells, *rankings = tables(build_markdown(scenario, "x"))
    assert all(len(line) == len(table[0]) for table in (cells, *rankings) for line in table)
    assert [line[:2] for line in cells[2:]] == [
        ["status quo", "old/old"],
        *([method, pair] for method in ("independent", "good", "bad") for pair in ("new/old", "new/new")),
    ]
    searches = [search for search in scenario.searches if (search.method, search.gallery) == ("good", "old")]
    scores = [search.scores["top1"] for search in searches]
    assert cells[4 + 1][2] == f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores, ddof=1):.1f}"
    upgrade = next(each for each in scenario.upgrades if each.method == "good")
    change = upgrade.result.change["new/old"]["top1"]
    assert cells[5][5].startswith(f"{100 * change.mean:+.1f} [{100 * change.low:+.1f}, ")
    assert [table[0][0] for table in rankings] == ["new/old, top-1", "new/old, mAP", "new/new, top-1", "new/new, mAP"]
    assert [line[0] for line in rankings[1][2:]] == ["good", "bad", "independent"]
    assert rankings[1][0][2] == "against good"
    assert [line[3] for line in rankings[1][2:]] == ["", "worse", "worse"]
    (against_bad,) = [line for line in tables(build_markdown(scenario, "x", "bad"))[2][2:] if line[0] == "good"]
    (against_good,) = [line for line in rankings[1][2:] if line[0] == "bad"]
    ends = against_good[2].split(" ", 1)[0], against_bad[2].split(" ", 1)[0]
    assert float(ends[0]) == -float(ends[1])
    assert against_bad[3] == "better"


def test_names_cannot_break_a_table(scenario: Report) -> None:
    text = scenario.to_json().replace('"good"', '"a|b\\n# <b>"')
    found = build_markdown(parse_report(json.loads(text), "x"), "x")
    assert r"| a\|b # &lt;b> | new/old |" in found
    assert "\n#" not in found


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("![t](http://evil/x.png)", r"!\[t]\(http://evil/x.png)"),
        ("[a](javascript:x)", r"[a]\(javascript:x)"),
        ("[a][b]", r"[a]\[b]"),
        ("[a]: http://evil", r"[a]\: http://evil"),
        (r"[a]\\(javascript:x)", r"[a]\\(javascript:x)"),
        ("&#91;a](javascript:x)", r"&amp;#91;a]\(javascript:x)"),
        (r"a\u202eb\u001b[2Jc", r"a\\u202eb\\x1b[2Jc"),
        ("+1.0 [-0.2, +2.1]", "+1.0 [-0.2, +2.1]"),
    ],
)
def test_names_are_no_links_pictures_or_commands(scenario: Report, name: str, shown: str) -> None:
    text = scenario.to_json().replace('"good"', f'"{name}"')
    found = build_markdown(parse_report(json.loads(text), "x"), "x")
    assert f"| {shown} | new/old |" in found


def test_an_unknown_method_is_refused_in_a_sentence(scenario: Report, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--against nix: x: expected one of independent, good, bad"):
        build_markdown(scenario, "x", "nix")
    with pytest.raises(DataError, match="does not compare methods"):
        build_markdown(Report(searches=scenario.searches), "x", "good")
    path = tmp_path / "figures.json"
    path.write_text(scenario.to_json())
    assert run(["report", str(path), "--out", str(tmp_path / "t.html"), "--against", "good"]) == 2
    assert run(["report", str(path), "--out", str(tmp_path / "t.md"), "--against", "bad"]) == 0
    assert "against bad" in (tmp_path / "t.md").read_text()


def test_the_page_and_the_sentences_compare_the_methods(scenario: Report) -> None:
    page = build_report(scenario, "x")
    assert page.count("<summary>new/") == 4
    difference = scenario.rankings[0].ranking.pairs[0].difference
    assert f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]" in page
    assert "one seed" not in page
    sentences = {(each.query, each.gallery, each.score): ranking_sentence(each) for each in scenario.rankings}
    assert sentences["new", "old", "mean_ap"].startswith("new/old, mAP: good leads with ")
    assert sentences["new", "old", "mean_ap"].endswith("; better than all others.")
    assert scenario.rankings[0].ranking.level_with("independent") == []


def test_pictures_of_many_methods(scenario: Report, tmp_path: Path) -> None:
    searches = [
        search.model_copy(update={"method": f"{search.method}{copied}".replace("independent0", "independent")})
        for copied in range(4)
        for search in scenario.searches
        if not (copied and search.query == "old")
    ]
    draw_matrices(Report(generations=["old", "new"], searches=searches), tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as picture:
        assert picture.width < 2200  # twelve methods: in three lines
    curve = [{"epoch": 1, "labels": 2.0, "loss": 3.0}, {"epoch": 2, "labels": 1.0, "loss": 2.0}]
    training = {f"seed{seed}/new/m{method}": curve for seed in (0, 1) for method in range(12)}
    assert draw_learning(training, "new", tmp_path / "learning.png")
    with Image.open(tmp_path / "learning.png") as picture:
        assert picture.format == "PNG"
    assert not draw_learning({"seed0/new/m": [{"epoch": 1, "loss": 3.0}]}, "new", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
