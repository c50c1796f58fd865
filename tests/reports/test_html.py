from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nobackfill.cli.app import run
from nobackfill.data import ImageSamples
from nobackfill.evaluation import compare, retrieval_metrics
from nobackfill.reports.charts import HEIGHT, WIDTH, axis_ticks, chart
from nobackfill.reports.document import Report, Search, UpgradeSection, parse_report
from nobackfill.reports.examples import ItemSource, flip_examples
from nobackfill.reports.html import build_report

HOSTILE = "<script>document.title = 'owned'</script>\"'><img src=x onerror=\"document.title = 'owned'\">"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report() -> Report:
    """A report as `evaluate --out` writes it, with pictures, captions, and names that want to be code."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 160)
    centres = random.normal(size=(4, 6))
    old = (centres[labels] + 1.5 * random.normal(size=(160, 6))).astype(np.float32)
    new = (centres[labels] + random.normal(size=(160, 6))).astype(np.float32)
    names = (HOSTILE, "dog", "a" * 60, "{{ 7 * 7 }}")
    pixels = random.integers(0, 256, (160, 40, 60, 3), np.uint8)
    images = ImageSamples(pixels, labels, names, "made", captions=tuple(f"{HOSTILE} {i}" for i in range(160)))
    upgrade = compare(old, new, labels, independent=new, exclude_self=True, class_names=names, replicates=200)
    pairs = {"old/old": (old, old), "new/old": (new, old), "new/new": (new, new)}
    cells = {
        name: retrieval_metrics(q, g, labels, labels, exclude_self=True) for name, (q, g) in pairs.items()
    }  # fmt: skip
    shown = ItemSource.of(images)
    examples = flip_examples(
        cells["old/old"], cells["new/old"], (old, old), (new, old), shown, shown, exclude_self=True
    )
    made = Report(
        generations=["old", "new"],
        searches=[Search.of(metrics, *name.split("/")) for name, metrics in cells.items()],  # type: ignore[arg-type]
        upgrades=[UpgradeSection(old=HOSTILE, new="new", result=upgrade, examples=examples)],
        training={"old": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]},
        settings={"data": HOSTILE, "galleries": ["a", "b"]},
    )
    return parse_report(json.loads(made.to_json()), "x")


def test_names_are_text_and_nothing_is_fetched(report: Report) -> None:
    page = build_report(report, HOSTILE)
    assert "<script>document.title" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page  # a name is no template either
    assert not re.search(r"(src|href|action)=\"(?!data:)", page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    "picture",
    [
        "https://evil.example/track.png",
        "javascript:alert(1)",
        "data:image/svg+xml;base64,AAAA",
        'data:image/png;base64,"x',
    ],
)
def test_a_picture_that_is_none_is_not_shown(report: Report, picture: str) -> None:
    tree = json.loads(report.to_json())
    tree["upgrades"][0]["examples"][0]["query"]["image"] = picture
    page = build_report(parse_report(tree, "x"), "x")
    assert page.count("<img") == build_report(report, "x").count("<img") - 1
    assert picture not in page


def test_the_page_says_what_the_report_says(report: Report) -> None:
    page = build_report(report, "x")
    upgrade = report.upgrades[0]
    verdict = upgrade.result.verdict
    assert verdict.decision.capitalize() in page
    for reason in verdict.reasons:
        assert reason in page
    for cell in ("old/old", "new/old", "new/new"):
        assert f"{100 * upgrade.result.scores[cell]['top1'].mean:.1f}" in page
    kinds = {example.flip for example in upgrade.examples}
    assert kinds == {"negative", "positive"}
    assert "Right before, wrong now" in page
    assert page.count("<polyline") == 2 * (2 + 1)  # each line and its legend
    for example in upgrade.examples:
        assert example.old[0].right is (example.flip == "negative")
        assert example.new[0].right is (example.flip == "positive")
        assert len(example.old) == 5


def test_one_search_without_an_upgrade(report: Report) -> None:
    page = build_report(Report(generations=["old"], searches=report.searches[:1]), "x")
    assert "there is no upgrade to assess" in page
    assert "All searches" in page


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_few_and_around_the_range(low: float, width: float) -> None:
    ticks = axis_ticks(low, low + width)
    tolerance = 1e-6 * max(1, abs(low), width)
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low + tolerance
    assert ticks[-1] >= low + width - tolerance


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(allow_nan=True)), max_size=8), st.none() | st.floats(-5, 5))
def test_a_chart_stays_in_its_frame(points: list[tuple[float, float]], level: float | None) -> None:
    points = [(x, y) for x, y in points if not abs(y) > 1e6]
    drawn = chart("title", "x", "y", {"a": points, "b": []}, level)
    finite = [point for point in points if point[1] == point[1]]
    if not finite:
        assert drawn is None
        return
    assert drawn is not None
    assert [line.name for line in drawn.lines] == ["a"]
    places = [tuple(map(float, pair.split(","))) for pair in drawn.lines[0].path.split(" ")]
    assert len(places) == len(finite)
    for x, y in places:
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(report: Report, tmp_path: Path, browser: Any, scheme: str) -> None:
    (tmp_path / "figures.json").write_text(report.to_json())
    assert run(["report", str(tmp_path / "figures.json"), "--out", str(tmp_path / "report.html")]) == 0
    page = browser.new_page(viewport={"width": 380, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]
    assert page.title().startswith("nobackfill report")  # no name became code
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    back, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) == (scheme == "dark")
    assert back != text

    table = page.locator("section table.sortable").first

    def column(number: int) -> list[str]:
        found: list[str] = table.locator(f"tbody tr td:nth-child({number})").all_text_contents()
        return found

    heading = table.locator("th").nth(2)
    assert heading.get_attribute("aria-sort") == "ascending"
    changes = [float(text) for text in column(3)]
    assert changes == sorted(changes)
    heading.locator("button").press("Enter")  # from the keyboard too
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(3)] == sorted(changes, reverse=True)
    table.locator("th button").first.click()
    assert column(1) == sorted(column(1), key=str.lower, reverse=True) or len(set(column(1))) == 4
    assert heading.get_attribute("aria-sort") is None

    assert page.locator("details:not([open])").count() > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
    page.close()


def test_control_and_direction_characters_are_escaped(report: Report) -> None:
    text = report.to_json().replace('"dog"', '"d\\u202eg\\u001b[2J"')
    page = build_report(parse_report(json.loads(text), "a\u202eb"), "a\u202eb")
    assert r"d\u202eg\x1b[2J" in page
    assert not set(page) & set("\u202e\x1b")


def test_long_texts_are_cut() -> None:
    """Whole, they would make a report too large to be read again."""
    source = ItemSource(None, texts=("x" * 100_000, "y" * 2000))
    assert [source.show(position).text for position in (0, 1)] == ["x" * 2000 + "…", "y" * 2000]
