"""How a gallery compares the scores of two generations: a rule for each pair, kept in the manifest.

The moments that some rules need (mean and covariance of both generations' vectors) are a document of their own, named
after its content: a search that knows a name may keep what it has read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError

from nobackfill.errors import GalleryError
from nobackfill.evaluation.rule_choice import RuleChoice, RuleCurve
from nobackfill.evaluation.scores import title
from nobackfill.evaluation.scoring_rules import ScoringRule, VectorMoments
from nobackfill.gallery.stores.base import Floats, Store

Moments = tuple[VectorMoments, VectorMoments]
"""Of old and of new vectors."""
SIDES = ("old", "new")
KEPT = 32  # moments in memory; each is some MB at most
_read: dict[str, Moments] = {}  # document name → its content


class PairRule(BaseModel):
    """The scoring rule for queries of one generation and stored vectors of an older one.

    Attributes:
        query, stored: numbers of the generations.
        rule: its name, see `evaluation.scoring_rules`; slope and intercept likewise.
        document: name of the document with the moments, if the rule needs them.
        curve: what a search was worth on the sample while it was backfilled, by the score the rule was chosen by.
        agreement: the same by agreement with the new model; both are None if the sample was too small to choose on.
        may_fall: whether `curve` falls by more than half a point from one tenth to the next.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    query: int = Field(ge=1)
    stored: int = Field(ge=1)
    rule: str
    slope: float = Field(default=1.0, gt=0)
    intercept: float = 0.0
    document: str | None = None
    curve: RuleCurve | None = None
    agreement: RuleCurve | None = None
    may_fall: bool = False


def save_rule(store: Store, query: int, stored: int, choice: RuleChoice) -> PairRule:
    """Write the moments, if the rule has some; the manifest that names them comes after."""
    rule, document = choice.rule, None
    if rule.moments is not None:
        data = _encoded(rule.moments)
        document = f"scoring-{query}-{stored}-{_digest(data)}"
        store.write(document, data)
    return PairRule(
        query=query, stored=stored, rule=rule.name, slope=rule.slope, intercept=rule.intercept, document=document,
        curve=choice.curve, agreement=choice.agreement, may_fall=choice.may_fall,
    )  # fmt: skip


def fitted_rule(store: Store, pair: PairRule, dims: tuple[int, int]) -> ScoringRule | None:
    """The rule of a pair whose vectors have these sizes (stored, query).

    Returns:
        None if its document is gone: the rule was renewed or dropped since the manifest was read.

    Raises:
        GalleryError: if the document is damaged.
    """
    if pair.document is None:
        return ScoringRule(pair.rule, pair.slope, pair.intercept)
    moments = _read.get(pair.document)
    if moments is None:
        data = store.read(pair.document)
        if data is None:
            return None
        if _digest(data) != pair.document.rsplit("-", 1)[-1]:
            raise damaged_rule(store, pair)
        try:
            moments = _decoded(data)
        except (SafetensorError, KeyError, ValueError) as error:
            raise damaged_rule(store, pair) from error
    if (len(moments[0].mean), len(moments[1].mean)) != dims:
        raise damaged_rule(store, pair)
    while len(_read) >= KEPT:
        _read.pop(next(iter(_read)), None)
    _read[pair.document] = moments
    return ScoringRule(pair.rule, pair.slope, pair.intercept, moments)


def damaged_rule(store: Store, pair: PairRule) -> GalleryError:
    """A rule whose document is not there, or is not what it was."""
    return GalleryError(
        f"{store.url}: damaged: the document {pair.document!r}; call `Gallery.renew_rules` to replace it"
    )


def forget_documents(store: Store, before: Sequence[PairRule], after: Sequence[PairRule]) -> None:
    """Remove the documents that only the earlier rules name."""
    still = {pair.document for pair in after}
    for pair in before:
        if pair.document is not None and pair.document not in still:
            store.write(pair.document, None)


def rule_line(pair: PairRule, name: Callable[[int], str]) -> str:
    """A rule and what it is worth, as text; `name` gives a generation's name."""
    line = f"scores of {name(pair.stored)} and {name(pair.query)} compared by {pair.rule}"
    if pair.curve is None:
        return f"{line} (the sample is too small to choose a rule)"
    values = pair.curve.values
    tenths = f"{values[0]:.1%} before the backfill, {values[len(values) // 2]:.1%} halfway, {values[-1]:.1%} after it"
    return f"{line}; {title(pair.curve.score)}: {tenths} (on {pair.curve.queries} queries)"


def _encoded(moments: Moments) -> bytes:
    """Covariances as their upper triangles in float16, scaled: an eighth of the size, accurate to a thousandth."""
    tensors = {}
    for side, each in zip(SIDES, moments, strict=True):
        triangle = each.covariance[np.triu_indices(len(each.mean))]
        scale = np.float32(np.abs(triangle).max() or 1.0)
        tensors[f"{side}_mean"], tensors[f"{side}_scale"] = each.mean, np.array([scale], np.float32)
        tensors[f"{side}_covariance"] = (triangle / scale).astype(np.float16)
    return safetensors.numpy.save(tensors)


def _decoded(data: bytes) -> Moments:
    tensors = safetensors.numpy.load(data)
    old, new = (
        VectorMoments(
            tensors[f"{side}_mean"],
            _symmetric(len(tensors[f"{side}_mean"]), tensors[f"{side}_covariance"], tensors[f"{side}_scale"]),
        )
        for side in SIDES
    )
    return old, new


def _symmetric(dim: int, triangle: np.ndarray, scale: Floats) -> Floats:
    matrix = np.zeros((dim, dim), np.float32)
    rows, columns = np.triu_indices(dim)
    matrix[rows, columns] = matrix[columns, rows] = triangle.astype(np.float32) * scale
    return matrix


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
