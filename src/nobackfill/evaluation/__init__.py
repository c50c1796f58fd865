"""Arrays in, figures out. Knows no model."""

from nobackfill.evaluation.retrieval import RetrievalMetrics, retrieval_metrics
from nobackfill.evaluation.spread import Spread
from nobackfill.evaluation.upgrade import (
    average_compatibility,
    average_score,
    is_compatible,
    self_accuracy_loss,
    update_gain,
)

__all__ = [
    "RetrievalMetrics",
    "Spread",
    "average_compatibility",
    "average_score",
    "is_compatible",
    "retrieval_metrics",
    "self_accuracy_loss",
    "update_gain",
]
