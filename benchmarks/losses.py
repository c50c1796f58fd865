"""What each method's head and loss cost beside the network: forward and backward of a batch, and its statistics.

    python benchmarks/losses.py

Processor time of one thread, from random features; batches of 512, 128 values, 100 classes, 50,000 old vectors.
"""

import time
from typing import Any

import torch
from torch.nn.functional import normalize

from nobackfill.config import ModelConfig
from nobackfill.methods import METHODS, Batch

BATCH, DIM, CLASSES, SAMPLES, REPEATS = 512, 128, 100, 50_000, 20


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    labels, old = torch.randint(CLASSES, (SAMPLES,)), normalize(torch.randn(SAMPLES, DIM))
    for name, method_class in METHODS.items():
        if "image" not in method_class.kinds:
            continue
        method, settings = method_class({}), dict[str, Any](method_class.model_defaults)
        model = ModelConfig(embedding_dim=DIM, classifier_scale=8, **settings)
        head, own = method.head(model, DIM, CLASSES), method.modules(model, DIM, CLASSES)
        started = time.process_time()
        statistics = method.statistics(old, labels, CLASSES)
        once = time.process_time() - started
        independent, means = normalize(torch.randn(BATCH, DIM)), 0.5 * normalize(torch.randn(CLASSES, DIM))
        classifier = getattr(head, "classifier", None)
        batch = Batch(labels[:BATCH], old[:BATCH], independent, means, statistics, 0.5, classifier, own)
        features = torch.randn(BATCH, head.in_features, requires_grad=True)
        for number in range(REPEATS + 3):
            if number == 3:  # warm
                started = time.process_time()
            total = torch.stack(list(method.loss(head(features), batch).values())).sum()
            total.backward()  # type: ignore[no-untyped-call]
        step = (time.process_time() - started) / REPEATS
        print(f"{name:14} {1000 * step:5.1f} ms a step, statistics {once:4.1f} s")


if __name__ == "__main__":
    main()
