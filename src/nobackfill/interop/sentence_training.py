"""Backward-compatible training in a script of sentence-transformers: a loss around the script's own.

Importing this needs sentence-transformers (extra `sentences`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from nobackfill.errors import ConfigError, DataError, nearest, require
from nobackfill.interop.orthogonal_dense import append_basis
from nobackfill.interop.pair_terms import compatibility_terms
from nobackfill.methods.base import one_minus_cosine
from nobackfill.models.encoder import Encoder
from nobackfill.models.runfolder import load
from nobackfill.models.sentence_encoder import SentenceEncoder, TextFunction, TextSpec, load_sentence_encoder
from nobackfill.models.sentence_identity import write_lineage

require("sentence_transformers", what="BackwardCompatibleLoss")
from sentence_transformers import SentenceTransformer  # noqa: E402

if TYPE_CHECKING:
    from datasets import Dataset

METHODS: dict[str, dict[str, float]] = {
    "bct": {"prototypes": 1.0, "prototype_scale": 16.0},
    "prefix": {"prototypes": 1.0, "prototype_scale": 16.0, "old": 5.0},
    "bt2": {"independent": 1.0, "prototypes": 1.0, "prototype_scale": 16.0, "old": 5.0},
}
"""The weights of each method. Those published for BT² and BCT (10 at scale 1) are for the few prototypes of classes."""
OldModel: TypeAlias = SentenceTransformer | Encoder | TextFunction | str | Path
LABEL_COLUMNS = ("label", "labels", "score", "scores")  # as the trainer's collator knows them


@runtime_checkable
class EmbeddingLoss(Protocol):
    """A loss of sentence-transformers that can be given the embeddings of the columns."""

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor | None
    ) -> Tensor | dict[str, Tensor]:
        """The loss, or its terms by name."""


class BackwardCompatibleLoss(nn.Module):
    """The script's loss, and the terms that keep the first values of the new vectors comparable with the old ones.

    With φ the new model's vector of d values, b = φ[:d_o] its first values (of unit norm; for `bct` as they are in a
    unit φ), φ_old the old model's vector, q the first column and D all documents (the other columns) of the batch:

        L = loss(φ) + w·InfoNCE(b(q), φ_old(D); s) + λ·mean(1 − cos(b, φ_old)) + λ1·mean(1 − cos(f, φ'_new))

    w, s, λ, λ1 = `prototypes`, `prototype_scale`, `old`, `independent`. These are the terms of this package's `bct`
    (the first two), `prefix` (the first three) and `bt2` (all), with old documents in the place of old class means.
    A document that stands twice in a batch is no negative of itself.

    `bt2` appends an orthogonal `Dense` to the model, φ = Q·f; it has no extra dimensions here, since no standard module
    could express them. The other methods leave the model as it is. What the script saves is an ordinary folder.

    Args:
        model: the model that is trained.
        old: the old model, frozen, where it has the new model's tokenizer. None where the data set holds the old
            vectors (`with_old_vectors`), which works for every old model.
        loss: the script's loss on `model`, one that has `compute_loss_from_embeddings`.
        method: bct, bt2 or prefix.
        old_dim: size of the old vectors, where `old` is None.
        independent: for `bt2`: a model trained with no thought for the old one, which has the model's tokenizer.
        weights: instead of those of `METHODS`.

    Raises:
        ConfigError: for arguments that do not go together.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        old: SentenceTransformer | None = None,
        loss: EmbeddingLoss | None = None,
        method: str = "bt2",
        *,
        old_dim: int | None = None,
        independent: SentenceTransformer | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(loss, EmbeddingLoss):
            kind = "none" if loss is None else type(loss).__name__
            raise ConfigError(
                f"loss: expected one that works on embeddings, such as MultipleNegativesRankingLoss, found {kind}"
            )
        self.method, self.weights = method, _weights(method, weights, independent is not None)
        self.old_dim: int = _old_dim(old, old_dim)
        size = _size(model)
        if size < self.old_dim:
            raise ConfigError(
                f"model: its vectors have {size} values, fewer than the {self.old_dim} of the old model; append a "
                "Dense module to it first"
            )
        for name, other in (("old", old), ("independent", independent)):
            if other is not None and not same_tokens(model, other):
                raise ConfigError(
                    f"{name}: its tokenizer is not the new model's, so it cannot read the trainer's batches; "
                    "give the old vectors with the data: with_old_vectors(dataset, old), old=None and old_dim"
                )
        if independent is not None and _size(independent) != size:
            raise ConfigError(f"independent: {_size(independent)} values, but the new model has {size}")
        self.model, self.loss = model, loss
        self.old, self.independent = _frozen(old), _frozen(independent)
        self.basis = append_basis(model) if method == "bt2" else None  # the model's own layer

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> dict[str, Tensor]:
        """The terms by name, which the trainer logs and adds up.

        Args:
            sentence_features: of each column: query, document, more documents.
            labels: without `old`: the old vectors, floats [n, columns, d_o]; else those of `loss`.
        """
        columns = [dict(features) for features in sentence_features]
        old = self._old_vectors(columns, labels)
        embeddings = [self.model(dict(features))["sentence_embedding"] for features in columns]
        own = self.loss.compute_loss_from_embeddings(embeddings, labels if self.old is not None else None)
        parts = own if isinstance(own, dict) else {"labels": own}
        if self.independent is not None and self.basis is not None:
            # f = Qᵀ·φ, as Q is orthogonal
            new = torch.cat([embedding @ self.basis.weight for embedding in embeddings])
            wanted = torch.cat([_embedded(self.independent, features) for features in columns])
            parts["independent"] = self.weights["independent"] * one_minus_cosine(new, wanted)
        return {**parts, **compatibility_terms(embeddings, old, self.weights, whole=self.method == "bct")}

    def _old_vectors(self, columns: Sequence[dict[str, Tensor]], labels: Tensor | None) -> list[Tensor]:
        if self.old is not None:
            return [_embedded(self.old, features) for features in columns]
        wanted = [len(columns), self.old_dim]
        if labels is None or list(labels.shape[1:]) != wanted:
            found = "none" if labels is None else list(labels.shape[1:])
            raise DataError(f"old vectors: expected {wanted} a row in the column 'label', found {found}; make them by "
                            "with_old_vectors(dataset, old)")  # fmt: skip
        return list(labels.float().unbind(1))

    def train(self, mode: bool = True) -> BackwardCompatibleLoss:
        """Old and independent model stay in evaluation mode."""
        super().train(mode)
        for frozen in (self.old, self.independent):
            if frozen is not None:
                frozen.eval()
        return self

    def get_config_dict(self) -> dict[str, str | float]:
        """What the model card says of it."""
        return {"method": self.method, "loss": type(self.loss).__name__, **self.weights}


def with_old_vectors(dataset: Dataset, old: OldModel, columns: Sequence[str] | None = None) -> Dataset:
    """A data set with the old model's vectors of its texts, where `BackwardCompatibleLoss` looks for them.

    Args:
        dataset: `datasets.Dataset` with a column of queries and one or more of documents, in this order.
        old: the old model: `SentenceTransformer`, an encoder of `nobackfill.load`, or what that takes, such as
            `sentence:FOLDER`.
        columns: of texts, queries first; None: all columns. The trainer reads every column in the data set's order, so
            what is returned has these in this order and no others.

    Returns:
        The data set with a column "label", float32 [columns, d_o] a row.

    Raises:
        DataError: if there is such a column already, a column is missing or named twice, or a text has no vector.
    """
    taken = [name for name in LABEL_COLUMNS if name in dataset.column_names]
    if taken:
        raise DataError(f"with_old_vectors: the data set has a column {taken[0]!r}, where the old vectors would go")
    if columns:
        absent = [name for name in columns if name not in dataset.column_names]
        if absent:
            there = ", ".join(dataset.column_names)
            raise DataError(f"with_old_vectors: columns: no column {absent[0]!r} in the data set; it has {there}")
        if len(set(columns)) < len(columns):
            raise DataError(f"with_old_vectors: columns: expected each name once, found {list(columns)}")
        dataset = dataset.select_columns(list(columns))
    encoder = _encoder(old)
    sides = []
    for place, name in enumerate(dataset.column_names):
        texts = list(dataset[name])
        if isinstance(encoder, TextFunction):
            sides.append(encoder.encode(texts, role="document" if place else "query"))
        else:
            sides.append(encoder.encode(texts))
    return dataset.add_column("label", [list(row) for row in np.stack(sides, axis=1)])  # Arrow takes rows of 1-d arrays


def record_lineage(folder: str | Path, old: str | Path) -> None:
    """Note in a trained model's folder that its first values compare with the vectors of an old model.

    Args:
        folder: of the new model, saved by the script.
        old: what `nobackfill.load` takes, such as `sentence:FOLDER` or a run folder.

    Raises:
        ConfigError: if the new vectors are smaller than the old ones.
    """
    spec = load(old).spec
    new = load_sentence_encoder(folder, "cpu").spec
    if new.dim < spec.dim:
        raise ConfigError(f"{folder}: {new.dim} values, fewer than the {spec.dim} of {spec.generation}")
    write_lineage(folder, spec.as_prefixes())


def same_tokens(one: SentenceTransformer, other: SentenceTransformer) -> bool:
    """Whether two models read the same tokens of every text."""
    return _tokens_of(one) == _tokens_of(other)


def _tokens_of(model: SentenceTransformer) -> tuple[object, ...]:
    import json

    tokenizer = getattr(model[0], "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if backend is None or not hasattr(backend, "to_str"):
        return (id(model),)  # not known, so like no other
    described = json.loads(backend.to_str())
    for setting in ("truncation", "padding"):  # as it was used last
        described.pop(setting, None)
    return type(model[0]).__name__, json.dumps(described, sort_keys=True), model.max_seq_length


def _weights(method: str, given: Mapping[str, float] | None, independent: bool) -> dict[str, float]:
    if method not in METHODS:
        raise ConfigError(f"method {method!r}: {nearest(method, METHODS)}")
    weights = dict(METHODS[method])
    for key, value in (given or {}).items():
        if key not in weights:
            raise ConfigError(f"weights: unknown key {key!r}: {nearest(key, weights)}")
        if not value >= 0:
            raise ConfigError(f"weights: key {key!r}: expected a value of at least 0, found {value}")
        weights[key] = value
    if independent and "independent" not in weights:
        raise ConfigError(f"independent: {method} has no use for it; only bt2 has")
    if not independent:
        if (given or {}).get("independent"):
            raise ConfigError(
                "weights: key 'independent': there is no independent model to weigh; give independent=, or leave it out"
            )
        weights.pop("independent", None)
    return weights


def _old_dim(old: SentenceTransformer | None, given: int | None) -> int:
    size = given if old is None else _size(old)
    if size is None:
        raise ConfigError("old: give the old model, or old_dim where the data set holds its vectors")
    if given not in (None, size):
        raise ConfigError(f"old_dim: {given}, but the old model's vectors have {size} values")
    return size


def _size(model: SentenceTransformer) -> int:
    return int(model.get_embedding_dimension() or 0)


def _frozen(model: SentenceTransformer | None) -> SentenceTransformer | None:
    return None if model is None else model.requires_grad_(False).eval()


@torch.no_grad()
def _embedded(model: SentenceTransformer, features: Mapping[str, Tensor]) -> Tensor:
    """Float32 [n, dim] of a frozen model, truncated as it is when it encodes."""
    embedding: Tensor = model(dict(features))["sentence_embedding"]
    return embedding[:, : _size(model)].float()


def _encoder(old: OldModel) -> Encoder | TextFunction:
    if isinstance(old, str | Path):
        return load(old)
    if isinstance(old, SentenceTransformer):
        return SentenceEncoder(old, TextSpec(generation="old", dim=_size(old), fingerprint="name:old"))
    return old
