"""What turns items into vectors of a model: a function, an array, a run folder; one module each."""

from nobackfill.gallery.embedders.arrays import ArrayEmbedder
from nobackfill.gallery.embedders.base import Embedded, Embedder
from nobackfill.gallery.embedders.functions import FunctionEmbedder, as_embedder
from nobackfill.gallery.embedders.run_folder import RunFolderEmbedder
from nobackfill.gallery.embedders.sentence import SentenceEmbedder

__all__ = [
    "ArrayEmbedder",
    "Embedded",
    "Embedder",
    "FunctionEmbedder",
    "RunFolderEmbedder",
    "SentenceEmbedder",
    "as_embedder",
]
