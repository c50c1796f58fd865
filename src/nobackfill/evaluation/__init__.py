"""Arrays in, figures out. Knows no model."""

from nobackfill.evaluation.backfilling import Curve, backfilling_curve
from nobackfill.evaluation.bootstrap import Difference, Interval, paired_bootstrap
from nobackfill.evaluation.compare import Upgrade, compare, judge
from nobackfill.evaluation.retrieval import RetrievalMetrics, retrieval_metrics
from nobackfill.evaluation.rivals import Ranking, rank
from nobackfill.evaluation.spread import Spread
from nobackfill.evaluation.upgrade import (
    average_compatibility,
    average_score,
    is_compatible,
    self_accuracy_loss,
    update_gain,
)

__all__ = [
    "Curve",
    "Difference",
    "Interval",
    "Ranking",
    "RetrievalMetrics",
    "Spread",
    "Upgrade",
    "average_compatibility",
    "average_score",
    "backfilling_curve",
    "compare",
    "is_compatible",
    "judge",
    "paired_bootstrap",
    "rank",
    "retrieval_metrics",
    "self_accuracy_loss",
    "update_gain",
]
