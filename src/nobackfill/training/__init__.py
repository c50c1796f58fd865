"""Training: from a config to a run folder."""

from nobackfill.training.loop import train
from nobackfill.training.setup import resolve

__all__ = ["resolve", "train"]
