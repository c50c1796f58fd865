"""M(β) of a gallery that a fit has mapped to the new space, while its items are re-embedded in several orders.

python benchmarks/backfill_orders.py vectors/banking77 fits/banking77 --out orders.json

The folder of vectors holds test_old.npy, test_new.npy, test_labels.npy and new.npy (the fitted items, which are left
out); the fit must hold `fastfill`, and the methods whose mapped gallery is to be looked at.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import nobackfill
from nobackfill.arrays import unit
from nobackfill.evaluation.neighbours import neighbours
from nobackfill.maps import uncertainty

FRACTIONS = np.linspace(0, 1, 11)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("fit", type=Path)
    parser.add_argument("--method", nargs="+", default=["fastfill", "ridge"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    old, new, labels = (np.load(arguments.vectors / f"test_{name}.npy") for name in ("old", "new", "labels"))
    fitted = {row.tobytes() for row in np.load(arguments.vectors / "new.npy")}
    unseen = np.array([row.tobytes() not in fitted for row in new])
    old, new, labels = unit(old[unseen], "old"), unit(new[unseen], "new"), labels[unseen]
    methods = arguments.fit / "methods"
    unsure = uncertainty(methods / "fastfill-to-new", old)
    nearest = neighbours(old, old, 1, exclude_self=True)[:, 0]
    found: dict[str, object] = {}
    for method in arguments.method:
        mapped = nobackfill.load(methods / f"{method}-to-new", "cpu").encode(old)
        error = 1 - (mapped * new).sum(axis=1)
        found[f"{method}: rank correlation of uncertainty and error"] = round(rank_correlation(unsure, error), 3)
        orders = {
            "random": np.random.default_rng(0).permutation(len(old)),
            "isolated": np.argsort((old * old[nearest]).sum(axis=1), kind="stable"),
            "uncertain": np.argsort(-unsure, kind="stable"),
            "by the true error": np.argsort(-error, kind="stable"),
        }
        for order, items in orders.items():
            curves = curve(mapped, new, labels, items)
            found[f"{method}, {order}"] = curves
            print(method, order, *(f"{100 * value:.1f}" for value in curves["top1"]), curves["area"])
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def curve(mapped: np.ndarray, new: np.ndarray, labels: np.ndarray, order: np.ndarray) -> dict[str, list[float]]:
    """Top-1 and mAP at each fraction, and the areas under both."""
    scores = []
    for fraction in FRACTIONS:
        gallery = mapped.copy()
        done = order[: round(fraction * len(order))]
        gallery[done] = new[done]
        metrics = nobackfill.retrieval_metrics(new, gallery, labels, labels, exclude_self=True)
        scores.append((metrics.cmc[1], metrics.mean_ap))
    columns = np.array(scores).T
    areas = ((columns[:, 1:] + columns[:, :-1]) / 2).mean(axis=1)
    top1, mean_ap, area = (np.round(each, 4).tolist() for each in (*columns, areas))
    return {"top1": top1, "mean_ap": mean_ap, "area": area}


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(each)) for each in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
