"""Report files: what is read, what is refused, and that files of format 1 stay readable."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from nobackfill.cli.app import run
from nobackfill.errors import DataError
from nobackfill.reports.charts import chart
from nobackfill.reports.document import FORMAT, parse_report, read_report
from nobackfill.reports.html import build_report
from nobackfill.reports.markdown import build_markdown
from nobackfill.reports.training import history

FIXTURES = Path(__file__).parents[1] / "fixtures"
RESULTS = Path(__file__).parents[2] / "docs" / "results"
FILES = ("report_upgrade.json", "report_scenario.json", "report_fit.json")


@pytest.fixture
def tree() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / FILES[0]).read_text())
    return loaded


@pytest.mark.parametrize("name", FILES)
def test_files_of_format_1_open(name: str) -> None:
    """Written by the version that introduced the format. Do not write them anew: change the format number instead."""
    report = read_report(FIXTURES / name)
    page, tables = build_report(report, name), build_markdown(report, name)
    assert "<h1>" in page
    assert tables.startswith("**")
    assert "\n| " in tables
    written = json.loads(report.to_json())
    for upgrade in written["upgrades"]:
        if curve := upgrade["result"]["curve"]:  # known since: the rule of a curve; before, scores were plain
            assert (curve.pop("rule"), curve.pop("may_fall")) == ("plain", False)
    for result in written["fit"]["results"] if written["fit"] else ():  # known since: flips, neighbours
        assert [result.pop(key) for key in ("queries", "lost", "won", "nearest")] == [None, None, None, 10]
    assert written == json.loads((FIXTURES / name).read_text())
    if name == "report_upgrade.json":
        (upgrade,) = report.upgrades
        assert upgrade.result.verdict.decision == "ship"
        assert upgrade.result.change["new/old"]["mean_ap"].decision == "better"
        assert "Ship" in page
    elif name == "report_scenario.json":
        assert report.seeds == {"independent": 2, "bct": 2}
        assert "bct" in tables
        assert report.rankings[0].ranking.methods[0].seeds == 2
    else:
        assert report.fit is not None
        assert report.fit.verdict.decision == "use it"
        assert [each.decision for each in report.fit.results[:2]] == [None, "better"]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("cifar100*.json")), ids=lambda path: path.stem)
def test_the_published_results_open(path: Path) -> None:
    report = read_report(path)
    assert report.searches[0].queries in (5000, 10_000)
    assert "status quo" in build_markdown(report, str(path)) or not report.rankings
    assert "All searches" in build_report(report, str(path))


def test_names_that_are_no_utf_8_are_written(tree: dict[str, Any], tmp_path: Path) -> None:
    """A file's name may be any bytes; Python has those that are no UTF-8 as halves of surrogate pairs."""
    tree["generations"] = [name := os.fsdecode(b"caf\xe9\\n"), "new"]
    tree["settings"] = {name: "ü"}
    file = tmp_path / "report.json"
    file.write_text(parse_report(tree, "x").to_json(), encoding="utf-8")
    report = read_report(file)
    assert report.generations[0] == "caf\\udce9\\n"
    assert report.settings == {"caf\\udce9\\n": "ü"}
    build_report(report, "x").encode()


def test_scores_of_other_versions(tree: dict[str, Any]) -> None:
    """A later version's score is passed over where it is unknown, and one that a file does not have is not shown."""
    for search in tree["searches"]:
        search["scores"]["of tomorrow"] = 0.5
        del search["scores"]["top5"]
    report = parse_report(tree, "x")
    assert report.scores() == ["top1", "mean_ap"]
    assert "top-5" not in build_markdown(report, "x")
    assert "of tomorrow" not in build_report(report, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(foo=1), "unknown key 'foo'"),
        (lambda d: d["searches"][0]["scores"].pop("top1"), "scores: expected the scores top1"),
        (lambda d: d["searches"].append(3), "key 'searches.3'"),
        (lambda d: d["searches"][0].pop("query"), "missing key 'searches.0.query'"),
        (lambda d: d["upgrades"][0]["result"].pop("verdict"), "verdict"),
        (lambda d: d["upgrades"][0]["result"]["verdict"].update(decision="maybe"), "verdict.decision"),
        (lambda d: d["upgrades"][0]["result"].update(scores=[]), "scores"),
        (lambda d: d["upgrades"][0]["result"]["scores"].pop("new/old"), "expected the cell 'new/old'"),
        (lambda d: d["upgrades"][0]["result"]["change"].update(other={}), "change: expected the cells of scores"),
        (lambda d: d["upgrades"][0]["result"]["change"]["new/old"].pop("mean_ap"), "expected the scores mean_ap"),
        (lambda d: d["upgrades"][0]["result"]["scores"]["new/old"]["top1"].update(mean="x"), "top1.mean"),
        (lambda d: d["upgrades"][0]["result"]["scores"]["new/old"]["top1"].update(mean=None), "top1.mean"),
        (lambda d: d["upgrades"][0]["result"]["classes"][0]["scores"]["mean_ap"].pop("old/old"), "expected the cells"),
        (lambda d: d["upgrades"][0]["result"]["curve"].update(fractions=["a"]), "curve.fractions"),
        (lambda d: d["upgrades"][0]["result"]["curve"].update(fractions=[0]), "as many values"),
        (lambda d: d["upgrades"][0]["examples"][0]["query"].update(image=7), "image"),
        (lambda d: d.update(training={"a": [{"epoch": 1}]}), "training of a: expected epoch and loss"),
        (lambda d: d.update(distance="dot"), "distance"),
    ],
)
def test_a_damaged_file_is_named_with_the_key(tree: dict[str, Any], change: Any, message: str) -> None:
    change(tree)
    with pytest.raises(DataError, match=f"^x: not a report of format {FORMAT}: ") as caught:
        parse_report(tree, "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; create one with `nobackfill evaluate"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "expected a report of"),
        ("{}", "expected a report of"),
        ('{"rows": [], "generations": []}', "a report from before format 1; create it again"),
        ('{"format": 2, "searches": []}', "a report of format 2, but this version reads 1"),
        ('{"format": "one"}', "a report of format 'one', but this version reads 1"),
        ('{"format": "\\n"}', "a report of format '\\n', but this version reads 1"),
        ('{"format": 1, "searches": 3}', "not a report of format 1: key 'searches'"),
    ],
)
def test_a_file_that_is_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    for source in (tmp_path, tmp_path / "report.json"):
        assert run(["report", str(source), "--out", str(tmp_path / "report.html")]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_history_is_none(tmp_path: Path) -> None:
    for text, found in (
        ('{"epoch": 1, "loss": 2.0, "lr": NaN}', [{"epoch": 1, "loss": 2.0}]),
        ('{"epoch": 1}', []),
        ('{"epoch": 1, "loss": NaN}', []),
        ("[" * 100_000, []),
    ):
        (tmp_path / "history.jsonl").write_text(text + "\n")
        assert history(tmp_path) == found


def test_cells_of_no_generation_are_refused() -> None:
    value = {"mean": 0.5, "std": None, "seeds": 1}
    cell = {"score": "top1", "method": "bt2", "query": "new", "gallery": "old", "value": value}
    with pytest.raises(DataError, match="generations: expected the names"):
        parse_report({"format": 1, "cells": [cell]}, "r")


def test_points_that_no_axis_can_hold_are_left_out() -> None:
    made = chart("t", "x", "y", {"a": [(0, 1), (1, 1e308), (-1e308, 2), (2, 3)]})
    assert made is not None
    assert chart("t", "x", "y", {"a": [(0, math.inf)]}) is None
