"""Encoders in and out of other tools: importers, Ray, scikit-learn, sentence-transformers, ONNX and torch.export."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nobackfill.interop.export import Exported as Exported
    from nobackfill.interop.export import export_encoder as export_encoder
    from nobackfill.interop.sentences import SentenceModule as SentenceModule
    from nobackfill.interop.transformer import EncoderTransformer as EncoderTransformer

# Loaded at first use: each needs packages that the others do without.
_ROOMS = {
    "EncoderTransformer": "transformer",
    "Exported": "export",
    "SentenceModule": "sentences",
    "export_encoder": "export",
}
__all__ = sorted(_ROOMS)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'nobackfill.interop' has no attribute {name!r}")
    return getattr(importlib.import_module(f"nobackfill.interop.{_ROOMS[name]}"), name)
