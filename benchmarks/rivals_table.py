"""The table of `docs/methods.md` from the report of a scenario, and its figures as JSON.

    nobackfill run configs/vectors/rivals/tuning.yaml --out runs/tuning
    nobackfill run configs/vectors/rivals/scenario.yaml --out runs/rivals
    python benchmarks/rivals_table.py runs/rivals --tuning runs/tuning --json docs/results/…

A row a method, best new/old top-1 first: scores, changes in the old gallery against doing nothing and against another
method (paired 95 % intervals over queries and seeds), and the area under the curve of a backfill. Of a scenario of
three generations and more: every cell of the lineage, AC and AM.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SCORES = ("top1", "top5", "mean_ap")
CELLS = ("new/old", "new/new")


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(difference: dict[str, float], sign: int = 1) -> str:
    low, high = sorted((100 * sign * difference["low"], 100 * sign * difference["high"]))
    return f"{100 * sign * difference['mean']:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def against(report: dict[str, Any], method: str, other: str, score: str) -> str:
    """The method's lead over another in new/old of the newest step."""
    old, new = report["generations"][-2:]
    for ranking in report["rankings"]:
        if (ranking["query"], ranking["gallery"], ranking["score"]) == (new, old, score):
            for pair in ranking["ranking"]["pairs"]:
                if (pair["method"], pair["against"]) == (method, other):
                    return points(pair["difference"])
                if (pair["method"], pair["against"]) == (other, method):
                    return points(pair["difference"], -1)
    return "–"


def mean_seconds(folder: Path, generation: str, method: str) -> float:
    """The mean training time of a generation's runs."""
    each = [
        json.loads(path.read_text())["seconds"] for path in folder.glob(f"seed*/{generation}/{method}/metrics.json")
    ]
    return sum(each) / len(each)


def upgrade_rows(report: dict[str, Any], folder: Path, other: str) -> tuple[list[str], dict[str, Any]]:
    """Lines of the table, and all figures by method."""
    results = {each["method"]: each["result"] for each in report["upgrades"]}
    kept: dict[str, Any] = {}
    compared = f"against doing nothing: top-1 | mAP | against `{other}`: top-1 | mAP"
    lines = [f"| method | new/old | new/new | {compared} | curve | s a run |", "|" + "---|" * 9]
    for method in sorted(results, key=lambda name: -results[name]["scores"]["new/old"]["top1"]["mean"]):
        result = results[method]
        scores = {cell: {score: result["scores"][cell][score]["mean"] for score in SCORES} for cell in CELLS}
        seconds = mean_seconds(folder, report["generations"][-1], method)
        change, area = result["change"]["new/old"], result["curve"]["area"]
        cells = [
            *("/".join(percent(value) for value in scores[cell].values()) for cell in CELLS),
            *(points(change[score]) for score in ("top1", "mean_ap")),
            *(against(report, method, other, score) for score in ("top1", "mean_ap")),
            f"{percent(area['top1'])}/{percent(area['mean_ap'])}",
            f"{seconds:.0f}",
        ]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
        kept[method] = {**scores, "change": change, "gain": result["gain"], "loss": result["loss"],
                        "curve": result["curve"], "seconds": seconds}  # fmt: skip
    return lines, kept


def lineage_rows(report: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Lines of the table of a longer lineage, and all figures by method."""
    names = report["generations"]
    places = [(query, gallery) for i, query in enumerate(names) for gallery in names[: i + 1]][1:]
    found = {(each["method"], each["query"], each["gallery"], each["score"]): each["value"] for each in report["cells"]}
    lineages = {(each["method"], each["score"]): each for each in report["lineages"]}
    lines = ["| method | " + " | ".join(map("/".join, places)) + " | AC | AM |", "|" + "---|" * (len(places) + 3)]
    kept = {}
    for method in sorted(report["seeds"], key=lambda name: -lineages[name, "top1"]["mean"]["mean"]):
        cells = {f"{query}/{gallery}": {score: found[method, query, gallery, score] for score in SCORES}
                 for query, gallery in places}  # fmt: skip
        both = ["/".join(percent(cell[score]["mean"]) for score in ("top1", "mean_ap")) for cell in cells.values()]
        sums = lineages[method, "top1"]
        compatibility, mean = sums["compatibility"], sums["mean"]
        spread = "" if mean["std"] is None else f" ± {percent(mean['std'])}"
        last = [f"{compatibility['mean']:.2f}", percent(mean["mean"]) + spread]
        lines.append(f"| `{method}` | " + " | ".join([*both, *last]) + " |")
        kept[method] = {"cells": cells, "compatibility": compatibility, "mean": mean}
    return lines, kept


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of `nobackfill run`")
    parser.add_argument("--against", default="bt2", help="the method that the others are compared with")
    parser.add_argument("--tuning", type=Path, help="folder of the runs that the settings were chosen by")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = json.loads((options.folder / "report.json").read_text())
    first = {
        each["score"]: each["value"]["mean"]
        for each in report["cells"]
        if (each["method"], each["query"]) == ("independent", report["generations"][0])  # it has every seed
    }
    if len(report["generations"]) > 2:
        lines, methods = lineage_rows(report)
    else:
        lines, methods = upgrade_rows(report, options.folder, options.against)
    print("old/old: " + "/".join(percent(first[score]) for score in SCORES), *lines, sep="\n")
    figures = {"settings": report["settings"], "versions": report["versions"], "old/old": first, "methods": methods}
    if options.tuning:
        tuned = json.loads((options.tuning / "report.json").read_text())
        figures["tuning"] = {
            each["method"]: {cell: each["result"]["scores"][cell]["mean_ap"]["mean"] for cell in CELLS}
            for each in tuned["upgrades"]
        }
        for method, maps in sorted(figures["tuning"].items(), key=lambda item: -sum(item[1].values())):
            print(f"{method:28} {sum(maps.values()) / 2:.4f}  {maps}")
    if options.json:
        options.json.write_text(json.dumps(rounded(figures), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
