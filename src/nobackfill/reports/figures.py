"""The figures of a report as plain rows, one a (query, gallery) pair, and their JSON."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nobackfill import __version__
from nobackfill.evaluation import RetrievalMetrics

SCORES = {"top1": "top-1", "top5": "top-5", "mean_ap": "mAP"}


def row(metrics: RetrievalMetrics, **names: str | int) -> dict[str, Any]:
    """Names first, then the scores of `SCORES` in 0–1 and how many queries they rest on."""
    return {
        **names,
        **metrics.scores(),
        "queries": metrics.queries,
        "without_match": metrics.without_match,
    }


def versions() -> dict[str, str]:
    """Of this package, Python and the libraries that decide the figures, as far as they are installed."""
    found = {}
    for name in ("torch", "torchvision", "timm", "numpy"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"nobackfill": __version__, "python": platform.python_version(), **found}


def to_json(rows: list[dict[str, Any]], **more: Any) -> str:
    """A report as JSON text: the rows, the versions, and whatever else it should say."""
    return json.dumps({"rows": rows, "versions": versions(), **more}, indent=2, allow_nan=False) + "\n"
