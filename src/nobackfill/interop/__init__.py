"""Encoders in and out of other tools: importers, Ray, scikit-learn, sentence-transformers, ONNX and torch.export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nobackfill.lazy import lazy_names

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
__getattr__ = lazy_names(__name__, _ROOMS)
