"""A run as a transformer of scikit-learn: a step of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from nobackfill.config import Modality
from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.data.samples import Inputs
from nobackfill.errors import RunError
from nobackfill.models.encoder import Encoder
from nobackfill.models.runfolder import load, load_spec


class EncoderTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embeds samples by the encoder of a run.

    Nothing is learnt, so `transform` may be called without `fit`. After `fit` it is bound to that generation: it goes
    on with the encoder that it has read. That is neither pickled nor cloned; copies read it from the run folder again,
    and should this have come to hold another generation, their `transform` says so instead of mixing the vectors of two
    models.

    Args:
        run: run folder; or `sentence:FOLDER`, `python:MODULE:FUNCTION`.
        batch_size: samples at a time; None: the encoder's own.

    Attributes:
        n_features_out_: size of the embedding, after `fit`.
        n_features_in_: size of the vectors it takes, after `fit` of a run of vectors.
        generation_: generation of the run, after `fit`.
        fingerprint_: its fingerprint, after `fit`.
    """

    def __init__(self, run: str | Path, batch_size: int | None = None) -> None:
        self.run = run
        self.batch_size = batch_size

    def fit(self, X: object, y: object = None) -> EncoderTransformer:  # noqa: ARG002 (scikit-learn passes them)
        """Read the run; `X` and `y` are not looked at. Raises `RunError` if it is not whole."""
        self._loaded: tuple[str, Encoder] | None = None  # what is cached may be older than what is there now
        spec = self._encoder().spec
        self.n_features_out_: int = spec.dim
        self.generation_: str = spec.generation
        self.fingerprint_: str = spec.fingerprint
        preprocessing = getattr(spec, "preprocessing", None)  # a model of texts that is no run has none
        if isinstance(preprocessing, VectorPreprocessing):
            self.n_features_in_ = preprocessing.input_dim
        elif hasattr(self, "n_features_in_"):
            del self.n_features_in_
        return self

    def transform(self, X: object) -> NDArray[np.float32]:
        """Embed samples.

        Args:
            X: what the run takes. Vectors: floats [n, d], also a data frame. Images: uint8 [n, height, width, 3] or
                [n, height, width], or image files. Texts: strings, as a list, an array or a column.

        Returns:
            float32 [n, n_features_out_].

        Raises:
            DataError: for samples of another kind or shape.
            RunError: if the run is not whole, or not the one of `fit`.
        """
        encoder = self._encoder()
        spec = encoder.spec
        if getattr(self, "fingerprint_", spec.fingerprint) != spec.fingerprint:
            raise RunError(
                f"{self.run}: fitted with generation {self.generation_}, found {spec.generation} there; fit again"
            )
        return encoder.encode(_samples(X, spec.modality), self.batch_size)

    def _encoder(self) -> Encoder:
        name, cached = str(self.run), getattr(self, "_loaded", None)
        if cached is None or cached[0] != name:  # `set_params` may have named another run
            cached = self._loaded = (name, load(self.run))
        return cached[1]

    @property
    def _n_features_out(self) -> int:
        """What the names of the features are counted from; known without weights."""
        return int(self.n_features_out_ if hasattr(self, "n_features_out_") else load_spec(self.run).dim)

    def __getstate__(self) -> dict[str, object]:
        state: dict[str, object] = dict(super().__getstate__())
        state.pop("_loaded", None)
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return True  # nothing is learnt


def _samples(X: object, modality: Modality) -> Inputs:
    """A list for the encoders that want one, where scikit-learn's splitters gave an array or a column of objects."""
    kind = getattr(getattr(X, "dtype", None), "kind", "O")
    if modality != "vector" and hasattr(X, "tolist") and kind in "OUT":
        X = X.tolist()
    return cast("Inputs", X)  # which `encode` checks
