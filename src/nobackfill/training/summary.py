"""What `metrics.json` says of a finished run."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from nobackfill.data import load_split
from nobackfill.errors import DataError
from nobackfill.evaluation import retrieval_metrics
from nobackfill.models import Encoder, load
from nobackfill.training.processes import encode_shared
from nobackfill.training.setup import Setup


def run_summary(setup: Setup, encoder: Encoder, accelerator: Accelerator) -> dict[str, object]:
    """Sizes, and retrieval on the test split with every class: self-test, and cross-test where there is an old model.

    A data set without a test split is no fault: then the reason stands where the figures would.
    """
    config = setup.plan.config
    summary: dict[str, object] = {
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "training_images": len(setup.samples),
    }
    if setup.samples.skipped:
        summary["skipped_training_images"] = list(setup.samples.skipped)
    try:
        test = load_split(config.data, "test")
    except DataError as error:
        return {**summary, "not_tested": str(error)}
    if test.skipped:
        summary["skipped_test_images"] = list(test.skipped)

    def searched(query: NDArray[np.float32], gallery: NDArray[np.float32]) -> dict[str, float]:
        return retrieval_metrics(query, gallery, test.labels, test.labels, exclude_self=True).scores()

    if not config.data.labelled:
        return {**summary, "not_tested": "the items have no labels"}
    new = encode_shared(encoder, test, config.data.processes, accelerator)
    summary["self_test"] = searched(new, new)
    old = test.vectors_of("old")
    if old is None and config.old:
        old = encode_shared(load(config.old, accelerator.device), test, config.data.processes, accelerator)
    if old is not None:
        summary["cross_test"], summary["status_quo"] = searched(new, old), searched(old, old)
    return summary
