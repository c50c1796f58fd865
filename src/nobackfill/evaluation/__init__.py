"""Arrays in, metrics out. Knows no model."""

from nobackfill.evaluation.assess import Upgrade, assess
from nobackfill.evaluation.backfilling import BackfillingCurve, backfilling_curve
from nobackfill.evaluation.bootstrap import Difference, Interval, paired_bootstrap
from nobackfill.evaluation.compare import compare
from nobackfill.evaluation.mean_std import MeanStd
from nobackfill.evaluation.method_ranking import MethodRanking, rank_methods
from nobackfill.evaluation.retrieval import RetrievalMetrics, retrieval_metrics
from nobackfill.evaluation.upgrade import (
    average_compatibility,
    average_score,
    is_compatible,
    self_accuracy_loss,
    update_gain,
)

__all__ = [
    "BackfillingCurve",
    "Difference",
    "Interval",
    "MeanStd",
    "MethodRanking",
    "RetrievalMetrics",
    "Upgrade",
    "assess",
    "average_compatibility",
    "average_score",
    "backfilling_curve",
    "compare",
    "is_compatible",
    "paired_bootstrap",
    "rank_methods",
    "retrieval_metrics",
    "self_accuracy_loss",
    "update_gain",
]
