"""Time of exact retrieval metrics, compared with a bare matrix product, the research code and other libraries.

    python benchmarks/evaluation.py                  # 10,000 × 10,000, every contender
    python benchmarks/evaluation.py --large          # 50,000 × 50,000, ours and the bare product

Each contender runs in its own process on the same vectors (fixed seed, 128 values, query set = gallery, self-matches
excluded). Time is that of the call alone, after a small warm-up; memory is the process's peak. Libraries that
are not installed are listed as such: pip install pytorch-metric-learning torchmetrics faiss-cpu.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Figures = dict[str, float]
DIM = 128


def embeddings(kind: str, n: int, classes: int) -> tuple[Floats, Labels]:
    """Unit vectors; `clustered` ones around class centres, so that mAP is about one half."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, n)
    vectors = random.standard_normal((n, DIM), np.float32)
    if kind == "clustered":
        vectors += np.float32(0.55) * random.standard_normal((classes, DIM), np.float32)[labels]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


def product(vectors: Floats, labels: Labels) -> Figures:
    """The floor: every score computed once, in blocks, and thrown away."""
    block = np.empty((128, len(vectors)), np.float32)
    for start in range(0, len(vectors), 128):
        rows = vectors[start : start + 128]
        np.matmul(rows, vectors.T, out=block[: len(rows)])
    return {}


def ours(vectors: Floats, labels: Labels) -> Figures:
    from nobackfill.evaluation import retrieval_metrics

    found = retrieval_metrics(vectors, vectors, labels, labels, exclude_self=True)
    return {"top1": found.cmc[1], "mAP": found.mean_ap, "mAP@R": found.mean_ap_at_r}


def research_code(vectors: Floats, labels: Labels) -> Figures:
    """As the BT² research code does it: all distances, their argsort, then scikit-learn's AP query by query."""
    from sklearn.metrics import average_precision_score

    distances = 1 - vectors @ vectors.T
    order = np.argsort(distances, axis=1)
    first, precisions = [], []
    for query in range(len(vectors)):
        others = order[query][order[query] != query]
        match = labels[others] == labels[query]
        if match.any():
            first.append(bool(match[0]))
            precisions.append(average_precision_score(match, -distances[query][others]))
    return {"top1": float(np.mean(first)), "mAP": float(np.mean(precisions))}


def metric_learning(vectors: Floats, labels: Labels) -> Figures:
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    figures = ("precision_at_1", "mean_average_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=figures, k=len(vectors) - 1, device=torch.device("cpu"))
    found = calculator.get_accuracy(torch.from_numpy(vectors), torch.from_numpy(labels))
    return {
        "top1": found["precision_at_1"],
        "mAP": found["mean_average_precision"],
        "mAP@R": found["mean_average_precision_at_r"],
    }


def metric_learning_at_r(vectors: Floats, labels: Labels) -> Figures:
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    figures = ("precision_at_1", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=figures, k="max_bin_count", device=torch.device("cpu"))
    found = calculator.get_accuracy(torch.from_numpy(vectors), torch.from_numpy(labels))
    return {"top1": found["precision_at_1"], "mAP@R": found["mean_average_precision_at_r"]}


def torchmetrics(vectors: Floats, labels: Labels) -> Figures:
    """Its flat lists of (query, score, match) are the n×n table; filled a block at a time."""
    import torch
    from torchmetrics.retrieval import RetrievalMAP

    metric, n = RetrievalMAP(), len(vectors)
    gallery, classes = torch.from_numpy(vectors), torch.from_numpy(labels)
    for start in range(0, n, 500):
        rows = torch.arange(start, min(n, start + 500))
        keep = torch.arange(n)[None] != rows[:, None]
        scores = gallery[rows] @ gallery.T
        match = classes[rows, None] == classes[None]
        metric.update(scores[keep], match[keep], rows[:, None].expand(-1, n)[keep])
    return {"mAP": float(metric.compute())}


def scikit_learn(vectors: Floats, labels: Labels) -> Figures:
    from sklearn.metrics import average_precision_score

    precisions = []
    for query in range(len(vectors)):
        others = np.arange(len(vectors)) != query
        match = labels[others] == labels[query]
        if match.any():
            precisions.append(average_precision_score(match, (vectors @ vectors[query])[others]))
    return {"mAP": float(np.mean(precisions))}


CONTENDERS: dict[str, tuple[Callable[[Floats, Labels], Figures], str, str]] = {
    "bare blocked product": (product, "", "none: the floor"),
    "nobackfill": (ours, "nobackfill", "top-1, mAP over the whole ranking, mAP@R"),
    "BT² research code's way": (research_code, "sklearn", "the same top-1 and mAP"),
    "scikit-learn, a query at a time": (scikit_learn, "sklearn", "the same mAP; no CMC"),
    "torchmetrics RetrievalMAP": (torchmetrics, "torchmetrics", "the same mAP but for ties; no CMC"),
    "pytorch-metric-learning, k = all": (metric_learning, "pytorch_metric_learning", "the same, float32 sums"),
    "pytorch-metric-learning, k = R": (metric_learning_at_r, "pytorch_metric_learning", "mAP@R only, no mAP"),
}


def one(name: str, kind: str, n: int, classes: int) -> dict[str, Any]:
    vectors, labels = embeddings(kind, n, classes)
    contender = CONTENDERS[name][0]
    contender(vectors[:256], labels[:256] % 4)
    times = []
    figures: Figures = {}
    for _ in range(3 if name in ("nobackfill", "bare blocked product") else 1):
        started = time.perf_counter()
        figures = contender(vectors, labels)
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": min(times), "peak_mb": peak, "figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", help="write the rows here as well")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, kind, n, classes = arguments.one
        print(json.dumps(one(name, kind, int(n), int(classes))))
        return
    n, classes = (50_000, 1000) if arguments.large else (10_000, 100)
    names = list(CONTENDERS)[:2] if arguments.large else list(CONTENDERS)
    rows = []
    for kind in ("clustered", "random"):
        print(f"\n{n:,} × {n:,}, {DIM} values, {classes} classes, {kind}")
        print(f"{'':34}{'seconds':>9}{'× floor':>9}{'peak MiB':>10}  figures")
        floor = 0.0
        for name in names if kind == "clustered" else names[:2]:
            _, module, quantity = CONTENDERS[name]
            if module and find_spec(module) is None:
                print(f"{name:34}  not installed")
                continue
            command = [sys.executable, __file__, "--one", name, kind, str(n), str(classes)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name:34}  failed: {(done.stderr.strip().splitlines() or ['killed'])[-1][:80]}")
                continue
            row = {"name": name, "kind": kind, "n": n, **json.loads(done.stdout.splitlines()[-1])}
            floor = floor or row["seconds"]
            figures = "  ".join(f"{key} {value:.4f}" for key, value in row["figures"].items())
            print(
                f"{name:34}{row['seconds']:9.2f}{row['seconds'] / floor:9.1f}{row['peak_mb']:10.0f}  "
                f"{figures or '–'}  ({quantity})",
                flush=True,
            )
            rows.append(row)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
