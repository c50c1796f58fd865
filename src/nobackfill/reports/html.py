"""The report: one HTML file that opens from disk, needs no network, and admits no script but its own.

Everything it shows comes from a JSON file that may have been written by anyone: texts are escaped by the template,
pictures must be PNG or JPEG data addresses, and the page's own policy refuses everything else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from nobackfill.errors import DataError
from nobackfill.evaluation.verdict import JUDGED
from nobackfill.reports.charts import Chart, chart
from nobackfill.reports.figures import SCORES
from nobackfill.reports.lineage import methods_of
from nobackfill.reports.upgrades import TITLES

MAX_BYTES = 2**28
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")
TEMPLATES = Path(__file__).parent / "templates"


def read_document(source: Path) -> dict[str, Any]:
    """The figures of a folder that `run` filled, or of a file that `evaluate --json` wrote. Raises `DataError`."""
    path = source / "report.json" if source.is_dir() else source
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES} bytes, not figures of this program")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; write one by `nobackfill evaluate … --json {path.name}` or `nobackfill run`"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())[:120]}") from error
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise DataError(f"{path}: expected the figures of `nobackfill evaluate --json` or `nobackfill run`")
    return document


def build_report(document: dict[str, Any], origin: str) -> str:
    """The page as text.

    Args:
        document: figures as `read_document` returns them.
        origin: where they are from, for messages and the page's head.

    Raises:
        DataError: if a figure is missing or of another kind.
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    environment.filters.update(percent=_percent, points=_points, picture=_picture)
    try:
        upgrades = document.get("upgrades", [])
        return environment.get_template("report.html.jinja").render(
            origin=origin,
            script=script,
            style=style,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            rows=document["rows"],
            fit=document.get("fit"),
            upgrades=[{**upgrade, "curve_chart": _curve_chart(upgrade)} for upgrade in upgrades],
            matrices=_matrices(document["rows"], document["generations"]),
            rankings=[_ranking(each) for each in document.get("rankings", []) if each["score"] in JUDGED],
            training=_training_chart(document.get("training", {}), (document["generations"] or [""])[-1]),
            settings=document.get("settings", {}),
            versions=document.get("versions", {}),
            scores=SCORES,
            titles=TITLES,
        )
    except (TemplateError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{origin}: not the figures that this version writes: {reason}") from error


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _picture(value: Any) -> str | None:
    return value if isinstance(value, str) and PICTURE.fullmatch(value) else None


def _curve_chart(upgrade: dict[str, Any]) -> Chart | None:
    curve = upgrade["curve"]
    if curve is None:
        return None
    shares = [100 * share for share in curve["shares"]]
    series = {
        SCORES[score]: list(zip(shares, (100 * value for value in values), strict=True))
        for score, values in curve["scores"].items()
        if score != "top5"
    }
    level = 100 * upgrade["scores"]["old/old"]["top1"]["mean"]
    return chart("Backfilling curve", "share of the gallery embedded anew, %", "score, %", series, level)


def _training_chart(training: dict[str, list[dict[str, float]]], newest: str) -> Chart | None:
    # One seed tells the shape; all of them would be a thicket.
    start = f"seed0/{newest}/"
    methods = {name.removeprefix(start): lines for name, lines in training.items() if name.startswith(start)}
    if methods and all("labels" in line for lines in methods.values() for line in lines):
        series = {name: [(line["epoch"], line["labels"]) for line in lines] for name, lines in methods.items()}
        return chart("Training loss", "epoch", f"{newest}: loss on the labels", series)
    # Sums of other losses: only their shapes compare.
    series = {
        name: [(line["epoch"], line["loss"] / lines[0]["loss"]) for line in lines]
        for name, lines in (methods or training).items()
        if lines and lines[0]["loss"]
    }
    return chart("Training loss", "epoch", "loss, first epoch = 1", series)


def _ranking(ranking: dict[str, Any]) -> dict[str, Any]:
    """With a line a method: its differences to the methods below it, None where it is not the higher one."""
    names = [each["method"] for each in ranking["methods"]]
    found = {(each["method"], each["against"]): each for each in ranking["differences"]}
    lines = [{**each, "cells": [found.get((each["method"], name)) for name in names]} for each in ranking["methods"]]
    return {**ranking, "lines": lines}


def _matrices(rows: list[dict[str, Any]], generations: list[str]) -> list[dict[str, Any]]:
    """For each method its triangle: means over seeds, and how far each lies from the status quo, in −1 … 1."""
    if len({(row["query"], row["gallery"]) for row in rows}) < 3 or not {row["query"] for row in rows} <= set(
        generations
    ):
        return []
    found = []
    for method in methods_of([{"method": "", **row} for row in rows]):
        cells: dict[tuple[str, str], list[dict[str, float]]] = {}
        for row in rows:
            own = row["query"] == row["gallery"] == generations[0]  # one model for every method
            if own or row.get("method", "") == method:
                cells.setdefault((row["query"], row["gallery"]), []).append(row)
        means = {
            cell: {score: math.fsum(each[score] for each in lines) / len(lines) for score in SCORES}
            for cell, lines in cells.items()
        }
        start = means[generations[0], generations[0]]["top1"]
        reach = max(0.01, *(abs(mean["top1"] - start) for mean in means.values()))
        lines = [
            {
                "query": query,
                "cells": [
                    {**means[query, gallery], "change": (means[query, gallery]["top1"] - start) / reach}
                    if (query, gallery) in means
                    else None
                    for gallery in generations
                ],
            }
            for query in generations
        ]
        found.append({"method": method, "galleries": generations, "lines": lines})
    return found
