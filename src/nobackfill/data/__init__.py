"""Samples in, (position, view) out: images, texts, pairs of texts, vectors of other models."""

from nobackfill.data.images import DATASETS
from nobackfill.data.kinds import load_split, open_loader, summarise
from nobackfill.data.pairs import PairSamples
from nobackfill.data.preprocessing import Preprocessing, VectorPreprocessing
from nobackfill.data.samples import ImageSamples, Samples, TextSamples, VectorSamples, for_old_model
from nobackfill.data.splits import Split, choose_classes, training_samples
from nobackfill.data.summary import DataSummary

__all__ = [
    "DATASETS",
    "DataSummary",
    "ImageSamples",
    "PairSamples",
    "Preprocessing",
    "Samples",
    "Split",
    "TextSamples",
    "VectorPreprocessing",
    "VectorSamples",
    "choose_classes",
    "for_old_model",
    "load_split",
    "open_loader",
    "summarise",
    "training_samples",
]
