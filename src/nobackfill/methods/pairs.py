"""Methods for pairs of query and document, which have no classes.

The label term becomes InfoNCE with the other documents of the batch as negatives, in both directions; what the old
class means say becomes InfoNCE of the new queries among the documents' *old* vectors, the search as it is deployed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nobackfill.config import Kind
from nobackfill.methods.base import Method, Teacher, one_minus_cosine, required
from nobackfill.methods.bct import BCT
from nobackfill.methods.bt2 import BT2
from nobackfill.methods.independent import Independent
from nobackfill.methods.prefix import PrefixMethod

Output = Mapping[str, Tensor]


@dataclass(frozen=True)
class PairBatch:
    """What a loss of n pairs may look at beside the output; a teacher the method does not name is None.

    The m ≥ n documents are the positives in the order of their queries, then the hard negatives.

    Attributes:
        answers: bool [n, m], documents that answer a query too, so that they are no negatives of it; also the
            query's own document.
        old_queries, old_documents: float32 [n, d_o] and [m, d_o], unit vectors of the old model.
        independent_queries, independent_documents: float32 [n, d] and [m, d], of the independent new model.
    """

    answers: Tensor
    old_queries: Tensor | None = None
    old_documents: Tensor | None = None
    independent_queries: Tensor | None = None
    independent_documents: Tensor | None = None


def info_nce(queries: Tensor, documents: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each query's own document among all (arXiv 1807.03748), those that answer it too left out.

    Args:
        queries: float32 [n, d] of any norm.
        documents: float32 [m, d] of any norm, m ≥ n, the n positives first.
        answers: bool [n, m], see `PairBatch`.
        temperature: the cosines are divided by it.
    """
    return own_document(normalize(queries) @ normalize(documents).T / temperature, answers)


def own_document(scores: Tensor, answers: Tensor) -> Tensor:
    """Mean cross entropy of each query's own document, document i for query i; others that answer it are left out.

    Args:
        scores: floats [n, m], m ≥ n.
        answers: bool [n, m], see `PairBatch`; what it says of the own documents does not matter.
    """
    own = torch.arange(len(scores), device=scores.device)
    others = answers.clone()
    others[own, own] = False
    return cross_entropy(scores.masked_fill(others, -torch.inf), own)


class PairMethod(Method):
    """Base of methods for pairs; it trains f alone, which is `independent`.

    L = ½·(InfoNCE(f_q, f_d; τ) + InfoNCE(f_d, f_q; τ)), plus by weight
    c·InfoNCE(b_q, φ_old(d); τ) + λ·(1 − mean cos(b, φ_old)) + λ1·(1 − mean cos(f, φ'_new)), the means over queries and
    documents alike. c, λ, λ1, τ = `cross`, `old`, `independent`, `temperature`. Hard negatives are documents like any
    other, save that no query is looked for from them.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"pair"})
    classifies: ClassVar[bool] = False
    loss_defaults: ClassVar[Mapping[str, float]] = {"temperature": 0.05}
    padded: ClassVar[bool] = False
    """Whether the cross term compares f with old vectors padded with zeros, so that b keeps the norm it has in f."""

    @property
    def needed(self) -> frozenset[Teacher]:
        """The cross term looks at the old vectors too."""
        weights = {"old": self._weight("old") + self._weight("cross"), "independent": self._weight("independent")}
        return frozenset(name for name in self.teachers if weights.get(name, 0) > 0)

    def pair_loss(self, queries: Output, documents: Output, batch: PairBatch) -> dict[str, Tensor]:
        """Named scalar parts, each already weighted; training minimises their sum.

        Args:
            queries: the head's parts of n queries.
            documents: of m documents, see `PairBatch`.
            batch: which document answers which query, and the teachers.
        """
        temperature, n = self.constants["temperature"], len(batch.answers)
        parts = {"pairs": symmetric(queries["new"], documents["new"], batch.answers, temperature)}
        if weight := self._weight("independent"):
            taught = torch.cat([required(batch.independent_queries), required(batch.independent_documents)])
            parts["independent"] = weight * one_minus_cosine(torch.cat([queries["new"], documents["new"]]), taught)
        if weight := self._weight("cross"):
            old, b = normalize(required(batch.old_documents)), queries["compatible"]
            scores = (b if self.padded else normalize(b)) @ old.T / temperature
            parts["cross"] = weight * own_document(scores, batch.answers[:n])
        if weight := self._weight("old"):
            taught = torch.cat([required(batch.old_queries), required(batch.old_documents)])
            b = torch.cat([queries["compatible"], documents["compatible"]])
            parts["old"] = weight * one_minus_cosine(b, taught)
        return parts

    def _weight(self, name: str) -> float:
        return self.constants.get(name, 0.0)


def symmetric(queries: Tensor, documents: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """½·(InfoNCE of the queries among all documents + InfoNCE of the positives among the queries)."""
    n = len(queries)
    forth = info_nce(queries, documents, answers, temperature)
    back = info_nce(documents[:n], queries, answers[:, :n].T, temperature)
    return (forth + back) / 2


class IndependentPairs(PairMethod, Independent):
    """f alone."""

    loss_defaults: ClassVar[Mapping[str, float]] = {"temperature": 0.05}


class BCTPairs(PairMethod, BCT):
    """f, whose first d_o values are b; the cross term alone says what is old. As in `BCT`, b is not renormalised."""

    padded: ClassVar[bool] = True
    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old"})
    ties: ClassVar[tuple[str, ...]] = ("cross",)
    loss_defaults: ClassVar[Mapping[str, float]] = {"cross": 1.0, "temperature": 0.05}


class BT2Pairs(PairMethod, BT2):
    """All terms, on BT²'s head."""

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old", "independent"})
    ties: ClassVar[tuple[str, ...]] = ("cross", "old")
    loss_defaults: ClassVar[Mapping[str, float]] = {"independent": 1.0, "cross": 1.0, "old": 5.0, "temperature": 0.05}


class PrefixPairs(PairMethod, PrefixMethod):
    """The cross term and the cosine to the old vectors, on one plain embedding."""

    teachers: ClassVar[frozenset[Teacher]] = frozenset({"old"})
    ties: ClassVar[tuple[str, ...]] = ("cross", "old")
    loss_defaults: ClassVar[Mapping[str, float]] = {"cross": 1.0, "old": 5.0, "temperature": 0.05}


PAIR_METHODS: dict[str, type[PairMethod]] = {
    "independent": IndependentPairs,
    "bct": BCTPairs,
    "bt2": BT2Pairs,
    "prefix": PrefixPairs,
}
