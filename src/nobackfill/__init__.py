"""Upgrade an embedding model without re-embedding the gallery.

The public names load what they need when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nobackfill.lazy import lazy_names

if TYPE_CHECKING:
    __version__: str
    from nobackfill.config import RunConfig as RunConfig
    from nobackfill.config import load_config as load_config
    from nobackfill.errors import NobackfillError as NobackfillError
    from nobackfill.evaluation import RetrievalMetrics as RetrievalMetrics
    from nobackfill.evaluation import Upgrade as Upgrade
    from nobackfill.evaluation import compare as compare
    from nobackfill.evaluation import retrieval_metrics as retrieval_metrics
    from nobackfill.gallery import Gallery as Gallery
    from nobackfill.models import EmbeddingSpec as EmbeddingSpec
    from nobackfill.models import Encoder as Encoder
    from nobackfill.models import load as load
    from nobackfill.training import train as train

_ROOMS = {
    "EmbeddingSpec": "models",
    "Encoder": "models",
    "Gallery": "gallery",
    "NobackfillError": "errors",
    "RetrievalMetrics": "evaluation",
    "RunConfig": "config",
    "Upgrade": "evaluation",
    "compare": "evaluation",
    "load": "models",
    "load_config": "config",
    "retrieval_metrics": "evaluation",
    "train": "training",
}
__all__ = ["__version__", *sorted(_ROOMS)]  # noqa: PLE0604


_load = lazy_names(__name__, _ROOMS)


def __getattr__(name: str) -> object:
    if name == "__version__":  # of the installed distribution; a bare source tree has none
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("nobackfill")
        except PackageNotFoundError:
            return "0+unknown"
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        from nobackfill.errors import missing_package

        raise missing_package(error.name, f"nobackfill.{name}") or error from error
