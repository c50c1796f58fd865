"""What each scoring rule makes of a gallery while it is backfilled, on pairs of vectors from files.

    python benchmarks/scoring_rules.py PAIRS.json --json table.json

PAIRS.json lists the pairs, each `{"name": …, "old_gallery": g_old.npy, "new_gallery": g_new.npy, "score": "mean_ap"}`
and what the queries are looking for: `"labels": y.npy` where the items are queries of each other, or `"query": q.npy`
(by the new model) with `"relevant": r.json` (a list of item numbers for each query). `"query_run"` names a fitted run
that is applied to the new vectors first. Rules are fitted and chosen without the labels or judgements.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from nobackfill.evaluation import BackfillingCurve, backfilling_curve
from nobackfill.evaluation.scoring_rules import PREFIX, RULES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    for pair in json.loads(arguments.pairs.read_text(encoding="utf-8")):
        results.append(measured(pair, arguments.pairs.parent))
        print(table(results[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measured(pair: dict[str, str], folder: Path) -> dict[str, Any]:
    """Every rule on one pair: values at each tenth, area and largest fall, in %; and what `auto` chose."""
    arrays = {name: np.load(folder / pair[name]) for name in ("old_gallery", "new_gallery", "query") if name in pair}
    if "query_run" in pair:
        from nobackfill.models import load

        encoder = load(folder / pair["query_run"])
        arrays |= {name: encoder.encode(rows) for name, rows in arrays.items() if name != "old_gallery"}
    new = arrays["new_gallery"]
    labels = np.load(folder / pair["labels"]) if "labels" in pair else None
    relevant = json.loads((folder / pair["relevant"]).read_text(encoding="utf-8")) if "relevant" in pair else None

    def curve(rule: Any) -> BackfillingCurve:
        return backfilling_curve(
            arrays.get("query", new), arrays["old_gallery"], new, labels, labels,
            relevant=relevant, exclude_self="query" not in arrays, rule=rule,
        )  # fmt: skip

    score = pair.get("score", "mean_ap")
    chosen = curve("auto")
    rules = {}
    for name in (*RULES, PREFIX):
        found = curve(name)
        values, first = (100 * np.asarray(found.scores[one]) for one in (score, "top1"))
        rules[name] = {
            "values": values.round(2).tolist(),
            "area": round(float(np.trapezoid(values, chosen.fractions)), 2),
            "largest_fall": round(max(0.0, float(-np.diff(values).min())), 2),
            "top1": first.round(2).tolist(),
            "top1_area": round(float(np.trapezoid(first, chosen.fractions)), 2),
        }
    best = max(RULES, key=lambda name: rules[name]["area"])
    mine = rules[chosen.rule]
    return {
        "pair": pair["name"],
        "items": len(new),
        "queries": chosen.queries,
        "score": score,
        "chosen": chosen.rule,
        "may_fall": chosen.may_fall,
        "best": best,
        "area_of_best": round(mine["area"] / rules[best]["area"], 4),
        "holds": mine["largest_fall"] <= 0.5 and mine["area"] >= 0.99 * rules[best]["area"],
        "top1_area_of_best": round(mine["top1_area"] / max(rules[name]["top1_area"] for name in RULES), 4),
        "rules": rules,
    }


def table(result: dict[str, Any]) -> str:
    """One pair as text."""
    lines = [
        f"{result['pair']}: {result['items']} items, {result['queries']} queries, {result['score']} in %; chosen "
        f"{result['chosen']}{' (may fall)' if result['may_fall'] else ''}, {100 * result['area_of_best']:.1f} % of the "
        f"area of {result['best']}; {'holds' if result['holds'] else 'DOES NOT HOLD'}; top-1: "
        f"{100 * result['top1_area_of_best']:.1f} % of the best area"
    ]
    for name, line in result["rules"].items():
        values = "".join(f"{value:6.1f}" for value in line["values"])
        lines.append(
            f"  {name:13}{values}   area {line['area']:5.1f}  largest fall {line['largest_fall']:4.1f}"
            f"  top-1 area {line['top1_area']:5.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
