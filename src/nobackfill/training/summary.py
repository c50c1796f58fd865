"""What `metrics.json` says of a finished run."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from nobackfill.data import PairSamples, Samples, for_old_model, load_split
from nobackfill.errors import DataError
from nobackfill.evaluation import retrieval_metrics
from nobackfill.evaluation.scores import PAIR_SCORES
from nobackfill.models import Encoder, load
from nobackfill.training.processes import encode_shared
from nobackfill.training.setup import Setup


def run_summary(setup: Setup, encoder: Encoder, accelerator: Accelerator) -> dict[str, object]:
    """Sizes, and retrieval on the test split with every class: self-test, and cross-test where there is an old model.

    Of pairs, the test queries search among the test documents. A data set without a test split is no fault: then the
    reason stands where the figures would.
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

    try:
        if isinstance(test, PairSamples):
            return {**summary, **_pair_searches(setup, encoder, test, accelerator)}
        return {**summary, **_searches(setup, encoder, test, accelerator)}
    except DataError as error:  # hours of training are not lost to a damaged test image
        if accelerator.num_processes > 1:  # the others wait for this one's share
            raise
        return {**summary, "not_tested": str(error)}


def _searches(setup: Setup, encoder: Encoder, test: Samples, accelerator: Accelerator) -> dict[str, object]:
    """The searches of the test samples among themselves, each without itself."""
    config, summary = setup.plan.config, dict[str, object]()

    def searched(query: NDArray[np.float32], gallery: NDArray[np.float32]) -> dict[str, float]:
        return retrieval_metrics(query, gallery, test.labels, test.labels, exclude_self=True).scores()

    if not config.data.labelled:
        return {"not_tested": "the items have no labels"}
    matches = np.bincount(test.labels)
    if matches.max() < 2 or (matches > 0).sum() < 2:
        return {"not_tested": f"{test.origin}: a test split needs two classes, and two samples of one"}
    new = encode_shared(encoder, test, config.data.processes, accelerator)
    summary["self_test"] = searched(new, new)
    old = test.vectors_of("old")
    if old is None and config.old:
        seen = for_old_model(test)
        old = encode_shared(load(config.old, accelerator.device), seen, config.data.processes, accelerator)
    if old is not None:
        summary["cross_test"], summary["status_quo"] = searched(new, old), searched(old, old)
    return summary


def _pair_searches(setup: Setup, encoder: Encoder, test: PairSamples, accelerator: Accelerator) -> dict[str, object]:
    """The searches of the test queries among the test documents."""
    config, relevant = setup.plan.config, test.relevant()

    def sides(model: Encoder) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        queries, documents = (encode_shared(model, side, 0, accelerator) for side in (test.queries, test.documents))
        return queries, documents

    def searched(query: NDArray[np.float32], gallery: NDArray[np.float32]) -> dict[str, float]:
        return retrieval_metrics(query, gallery, relevant=relevant).scores(PAIR_SCORES)

    new_queries, new_documents = sides(encoder)
    summary: dict[str, object] = {"self_test": searched(new_queries, new_documents)}
    if config.old:
        old_queries, old_documents = sides(load(config.old, accelerator.device))
        summary["cross_test"] = searched(new_queries, old_documents)
        summary["status_quo"] = searched(old_queries, old_documents)
    return summary
