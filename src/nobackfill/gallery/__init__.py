"""Galleries that outlive their model: vectors of several generations in one store, searched together.

Works on vectors from anywhere; knows no model and no training.
"""

from nobackfill.gallery.backfill import Embedded, Job, backfill
from nobackfill.gallery.gallery import Gallery, Hit
from nobackfill.gallery.lineage import Curve, Generation
from nobackfill.gallery.opening import open_store
from nobackfill.gallery.store import Store

__all__ = ["Curve", "Embedded", "Gallery", "Generation", "Hit", "Job", "Store", "backfill", "open_store"]
