"""Encoders in and out of other tools: importers, Ray, scikit-learn, sentence-transformers, ONNX and torch.export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nobackfill.lazy import lazy_names

if TYPE_CHECKING:
    from nobackfill.interop.export import Exported as Exported
    from nobackfill.interop.export import export_encoder as export_encoder
    from nobackfill.interop.sentence_export import export_sentence_transformer as export_sentence_transformer
    from nobackfill.interop.sentence_training import BackwardCompatibleLoss as BackwardCompatibleLoss
    from nobackfill.interop.sentence_training import record_lineage as record_lineage
    from nobackfill.interop.sentence_training import with_old_vectors as with_old_vectors
    from nobackfill.interop.sentences import SentenceModule as SentenceModule
    from nobackfill.interop.transformer import EncoderTransformer as EncoderTransformer

# Loaded at first use: each needs packages that the others do without.
_ROOMS = {
    "BackwardCompatibleLoss": "sentence_training",
    "EncoderTransformer": "transformer",
    "Exported": "export",
    "SentenceModule": "sentences",
    "export_encoder": "export",
    "export_sentence_transformer": "sentence_export",
    "record_lineage": "sentence_training",
    "with_old_vectors": "sentence_training",
}
__all__ = sorted(_ROOMS)  # noqa: PLE0605
__getattr__ = lazy_names(__name__, _ROOMS)
