"""Galleries that outlive their model: vectors of several generations in one store, searched together.

Works on vectors from anywhere; knows no model and no training. The names load what they need when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nobackfill.lazy import lazy_names

if TYPE_CHECKING:
    from nobackfill.gallery.embedders.arrays import ArrayEmbedder as ArrayEmbedder
    from nobackfill.gallery.embedders.base import Embedded as Embedded
    from nobackfill.gallery.embedders.base import Embedder as Embedder
    from nobackfill.gallery.embedders.functions import FunctionEmbedder as FunctionEmbedder
    from nobackfill.gallery.embedders.run_folder import RunFolderEmbedder as RunFolderEmbedder
    from nobackfill.gallery.filters import parse_filter as parse_filter
    from nobackfill.gallery.gallery import Gallery as Gallery
    from nobackfill.gallery.job import Job as Job
    from nobackfill.gallery.lineage import ExpectedCurve as ExpectedCurve
    from nobackfill.gallery.lineage import Generation as Generation
    from nobackfill.gallery.planning import Plan as Plan
    from nobackfill.gallery.searching import Hit as Hit
    from nobackfill.gallery.status import GalleryStatus as GalleryStatus
    from nobackfill.gallery.stores.base import ItemBatch as ItemBatch
    from nobackfill.gallery.stores.base import Store as Store
    from nobackfill.gallery.stores.registry import open_store as open_store

_MODULES = {
    "ArrayEmbedder": "embedders",
    "Embedded": "embedders",
    "Embedder": "embedders",
    "ExpectedCurve": "lineage",
    "FunctionEmbedder": "embedders",
    "Gallery": "gallery",
    "GalleryStatus": "status",
    "Generation": "lineage",
    "Hit": "searching",
    "ItemBatch": "stores.base",
    "Job": "job",
    "Plan": "planning",
    "RunFolderEmbedder": "embedders",
    "Store": "stores.base",
    "open_store": "stores.registry",
    "parse_filter": "filters",
}
__all__ = sorted(_MODULES)  # noqa: PLE0605
__getattr__ = lazy_names(__name__, _MODULES)
