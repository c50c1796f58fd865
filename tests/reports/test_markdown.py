from __future__ import annotations

import copy
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
from nobackfill.reports.figures import row, to_json
from nobackfill.reports.html import build_report
from nobackfill.reports.lineage import draw_matrices, summary
from nobackfill.reports.markdown import build_markdown
from nobackfill.reports.rankings import ranking_sentence, ranking_values
from nobackfill.reports.scenario import Judgements
from nobackfill.reports.training import draw_learning
from nobackfill.reports.upgrades import plain


@pytest.fixture(scope="module")
def scenario() -> tuple[dict[str, Any], Judgements]:
    """Figures as `run` writes them, of two generations, two seeds and three methods: `good` is better than `bad`."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 30)
    centres = random.normal(size=(6, 8))
    pixels = random.integers(0, 256, (180, 8, 8, 3), np.uint8)
    judgements, rows = Judgements(ImageSamples(pixels, labels, tuple("abcdef"), "made"), ["old", "new"]), []
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
            judgements.add(method, seed, query, gallery, metrics, (queries, items))
            rows.append(row(metrics, method=method, seed=seed, query=query, gallery=gallery))
    upgrades = [
        {"method": step[0], "old": step[1], "new": step[2], **plain(found), "examples": []}
        for step, found in judgements.judged()
    ]
    text = to_json(
        rows,
        generations=["old", "new"],
        summary=summary(rows, ["old", "new"]),
        upgrades=upgrades,
        rankings=list(map(ranking_values, judgements.rankings())),
    )
    found: dict[str, Any] = json.loads(text)
    return found, judgements


def tables(text: str) -> list[list[list[str]]]:
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in text.strip().split("\n\n")
    ]


def test_a_scenario_as_tables(scenario: tuple[dict[str, Any], Judgements]) -> None:
    document, _ = scenario
    cells, *rankings = tables(build_markdown(document, "x"))
    assert all(len(line) == len(table[0]) for table in (cells, *rankings) for line in table)
    assert [line[:2] for line in cells[2:]] == [
        ["status quo", "old/old"],
        *([method, pair] for method in ("independent", "good", "bad") for pair in ("new/old", "new/new")),
    ]
    scores = [line["top1"] for line in document["rows"] if (line["method"], line["gallery"]) == ("good", "old")]
    assert cells[4 + 1][2] == f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores, ddof=1):.1f}"
    change = next(each for each in document["upgrades"] if each["method"] == "good")["change"]["new/old"]["top1"]
    assert cells[5][5].startswith(f"{100 * change['mean']:+.1f} [{100 * change['low']:+.1f}, ")
    assert [table[0][0] for table in rankings] == ["new/old, top-1", "new/old, mAP", "new/new, top-1", "new/new, mAP"]
    assert [line[0] for line in rankings[1][2:]] == ["good", "bad", "independent"]
    assert rankings[1][0][2] == "against good"
    assert [line[3] for line in rankings[1][2:]] == ["", "worse", "worse"]
    (against_bad,) = [line for line in tables(build_markdown(document, "x", "bad"))[2][2:] if line[0] == "good"]
    (against_good,) = [line for line in rankings[1][2:] if line[0] == "bad"]
    ends = against_good[2].split(" ", 1)[0], against_bad[2].split(" ", 1)[0]
    assert float(ends[0]) == -float(ends[1])
    assert against_bad[3] == "better"


def test_names_cannot_break_a_table(scenario: tuple[dict[str, Any], Judgements]) -> None:
    text = json.dumps(scenario[0]).replace('"good"', '"a|b\\n# <b>"')
    found = build_markdown(json.loads(text), "x")
    assert r"| a\|b # &lt;b> | new/old |" in found
    assert "\n#" not in found


def test_other_figures_are_refused_in_a_sentence(scenario: tuple[dict[str, Any], Judgements], tmp_path: Path) -> None:
    document = copy.deepcopy(scenario[0])
    with pytest.raises(DataError, match=r"--against nix: x: expected one of independent, good, bad"):
        build_markdown(document, "x", "nix")
    with pytest.raises(DataError, match="holds no scenario"):
        build_markdown({"rows": document["rows"]}, "x", "good")
    del document["upgrades"][0]["change"]
    with pytest.raises(DataError, match="x: not the figures"):
        build_markdown(document, "x")
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(scenario[0]))
    assert run(["report", str(path), "--out", str(tmp_path / "t.html"), "--against", "good"]) == 2
    assert run(["report", str(path), "--out", str(tmp_path / "t.md"), "--against", "bad"]) == 0
    assert "against bad" in (tmp_path / "t.md").read_text()


def test_the_page_and_the_sentences_hold_the_methods_against_each_other(
    scenario: tuple[dict[str, Any], Judgements],
) -> None:
    document, judgements = scenario
    page = build_report(document, "x")
    assert page.count("<summary>new/") == 4
    difference = document["rankings"][0]["differences"][0]
    assert f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]" in page
    assert "one seed" not in page
    sentences = {each[:3]: ranking_sentence(each) for each in judgements.rankings()}
    assert sentences["new", "old", "mean_ap"].startswith("new/old, mAP: good leads with ")
    assert sentences["new", "old", "mean_ap"].endswith("; better than every other.")
    level = next(found for *_, found in judgements.rankings()).level_with("independent")
    assert level == []


def test_pictures_of_many_methods(scenario: tuple[dict[str, Any], Judgements], tmp_path: Path) -> None:
    rows = [
        {**line, "method": f"{line['method']}{copied}".replace("independent0", "independent")}
        for copied in range(4)
        for line in scenario[0]["rows"]
        if not (copied and line["query"] == "old")
    ]
    draw_matrices(rows, ["old", "new"], tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as picture:
        assert picture.width < 2200  # twelve methods: in three lines
    curve = [{"epoch": 1, "labels": 2.0, "loss": 3.0}, {"epoch": 2, "labels": 1.0, "loss": 2.0}]
    training = {f"seed{seed}/new/m{method}": curve for seed in (0, 1) for method in range(12)}
    assert draw_learning(training, "new", tmp_path / "learning.png")
    with Image.open(tmp_path / "learning.png") as picture:
        assert picture.format == "PNG"
    assert not draw_learning({"seed0/new/m": [{"epoch": 1, "loss": 3.0}]}, "new", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
