"""Scoring rules for mixed galleries of old and new vectors, compared on vectors from files.

    python benchmarks/mixing.py --query q.npy --old-gallery g_old.npy --new-gallery g_new.npy --labels y.npy

Queries are the new vectors of the same items (pass the same file as `--query` and `--new-gallery`), or of others with
`--query-labels`. `--old-query` adds the rule that needs the old encoder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from nobackfill.evaluation.mixing import mixing_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("query", "old-gallery", "new-gallery", "labels"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--old-query")
    parser.add_argument("--query-labels")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    labels = np.load(arguments.labels)
    rows = mixing_study(
        np.load(arguments.query),
        np.load(arguments.old_gallery),
        np.load(arguments.new_gallery),
        np.load(arguments.query_labels) if arguments.query_labels else labels,
        labels,
        old_query=np.load(arguments.old_query) if arguments.old_query else None,
        exclude_self=arguments.query_labels is None,
    )
    print(f"{'rule':24}{'β':>6}{'top-1':>8}{'mAP':>8}{'recall@R old':>14}{'new':>8}")
    for row in rows:
        numbers = [100 * float(row[name]) for name in ("top1", "mean_ap", "recall_old", "recall_new")]
        print(f"{row['rule']:24}{row['fraction']:6.2f}" + "{:8.1f}{:8.1f}{:14.1f}{:8.1f}".format(*numbers))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
