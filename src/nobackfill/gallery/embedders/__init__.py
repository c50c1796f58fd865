"""What turns items into vectors of a model: a function, an array, a run folder; one module each."""

from nobackfill.gallery.embedders.arrays import ArrayEmbedder
from nobackfill.gallery.embedders.base import Embedded, Embedder
from nobackfill.gallery.embedders.functions import FunctionEmbedder, as_embedder
from nobackfill.gallery.embedders.run_folder import RunFolderEmbedder

__all__ = ["ArrayEmbedder", "Embedded", "Embedder", "FunctionEmbedder", "RunFolderEmbedder", "as_embedder"]
