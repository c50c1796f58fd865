"""Pages that everybody can read: axe-core finds nothing, in light and dark, on a phone, on paper, by keyboard alone."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nobackfill.reports.comparing import compare_reports
from nobackfill.reports.document import read_report
from nobackfill.reports.html import build_comparison, build_report

FIXTURES = Path(__file__).parents[1] / "fixtures"
KINDS = ("fit", "scenario", "upgrade", "comparison")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, fetched by npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: axe-core cannot be fetched")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", "axe-core@4", "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    archives = list(folder.glob("axe-core-*.tgz"))
    if done.returncode or not archives:
        pytest.skip("npm could not fetch axe-core")
    with tarfile.open(archives[0]) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Kind of report → address of its page."""
    folder = tmp_path_factory.mktemp("pages")
    reports = {kind: read_report(FIXTURES / f"report_{kind}.json") for kind in KINDS[:-1]}
    texts = {kind: build_report(report, f"runs/{kind}") for kind, report in reports.items()}
    same = reports["upgrade"]
    texts["comparison"] = build_comparison(compare_reports(same, same, ("runs/a", "runs/b")))
    for kind, text in texts.items():
        (folder / f"{kind}.html").write_text(text, encoding="utf-8")
    return {kind: (folder / f"{kind}.html").as_uri() for kind in texts}


def found(page: Any, axe: str) -> list[str]:
    page.evaluate(axe)
    violations = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)")
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in violations]


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing(kind: str, pages: dict[str, str], browser: Any, axe: str) -> None:
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 400)):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.goto(pages[kind])
        for closed in page.locator("details:not([open]) > summary").all():
            closed.click()
        assert found(page, axe) == [], f"{scheme}, {width} px"
        page.close()


def test_axe_would_find_something(browser: Any, axe: str) -> None:
    page = browser.new_page()
    page.set_content("<!doctype html><html><body><img src='data:,'><p style='color: #ddd'>pale</p></body></html>")
    names = {line.partition(":")[0] for line in found(page, axe)}
    assert names >= {"color-contrast", "html-has-lang", "image-alt"}
    page.close()


@pytest.mark.parametrize("kind", KINDS)
def test_by_keyboard_alone_and_on_a_phone_and_on_paper(kind: str, pages: dict[str, str], browser: Any) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(pages[kind])
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    wanted = page.locator("button:visible, summary:visible, .scroll:visible").count()
    reached = set()
    for _ in range(wanted):  # each stop in turn, every one with a visible frame
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[[...document.querySelectorAll('*')].indexOf(document.activeElement),"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none"
        reached.add(name)
    assert len(reached) == wanted
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator(".scroll").first.evaluate("(table) => getComputedStyle(table).overflowX") == "visible"
    page.close()
