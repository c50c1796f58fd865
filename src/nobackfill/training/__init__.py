"""Training: from a config to a run folder."""

from nobackfill.training.loop import train
from nobackfill.training.resolving import resolve

__all__ = ["resolve", "train"]
