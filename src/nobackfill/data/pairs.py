"""Pairs of query and document as a kind of sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.config import Modality, PairData
from nobackfill.data.grouping import connected
from nobackfill.data.preprocessing import Role
from nobackfill.data.samples import Inputs, TextSamples
from nobackfill.data.splits import Split
from nobackfill.data.summary import DataSummary
from nobackfill.data.text_files import check_text, labels_in, read_columns, texts_in
from nobackfill.data.texts import held_out, holds_out, test_file
from nobackfill.errors import DataError

if TYPE_CHECKING:
    from nobackfill.data.loader import PairLoader

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class PairSamples:
    """n pairs over texts that each stand here once.

    Attributes:
        queries: all queries.
        documents: all documents, those first that are the positive of a pair.
        query: int64 [n], position in `queries`.
        document: int64 [n], position in `documents` of the positive.
        negatives: for each pair the positions in `documents` of its hard negatives.
        group: int64 [documents]; documents of one group (the same id) are never negatives of each other's queries.
    """

    queries: TextSamples
    documents: TextSamples
    query: Numbers
    document: Numbers
    negatives: tuple[Numbers, ...]
    group: Numbers
    origin: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.query)

    @property
    def labels(self) -> Numbers:
        """All of one nameless class."""
        return np.zeros(len(self), np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The nameless class."""
        return ("pair",)

    @property
    def ids(self) -> Sequence[str]:
        """Positions."""
        return list(map(str, range(len(self))))

    def take(self, index: NDArray[np.int64]) -> PairSamples:
        """The pairs at these positions, in this order, with the texts that they need."""
        some = tuple(self.negatives[i] for i in index)
        queries, query = np.unique(self.query[index], return_inverse=True)
        positives = np.unique(self.document[index])
        others = np.setdiff1d(np.concatenate([np.empty(0, np.int64), *some]), positives)
        kept = np.concatenate([positives, others])
        place = np.zeros(len(self.documents), np.int64)
        place[kept] = np.arange(len(kept))
        return replace(
            self,
            queries=self.queries.take(queries),
            documents=self.documents.take(kept),
            query=query.astype(np.int64),
            document=place[self.document[index]],
            negatives=tuple(place[each] for each in some),
            group=self.group[kept],
        )

    def inputs(self, modality: Modality) -> Inputs:  # noqa: ARG002
        """A pair is no single text: raises `DataError`."""
        raise DataError(f"{self.origin}: holds pairs of texts; expected single texts: set data.name to texts")

    def digest(self, modality: Modality) -> str:
        """SHA-256 of the texts of both sides."""
        return self.queries.digest(modality) + self.documents.digest(modality)

    def vectors_of(self, teacher: str) -> None:
        """None come with texts."""

    def relevant(self) -> list[Numbers]:
        """For each query the documents that answer it, ascending: its own and those of their groups."""
        by_group = np.argsort(self.group, kind="stable")
        starts = np.searchsorted(self.group[by_group], np.arange(int(self.group.max()) + 2))
        order = np.argsort(self.query, kind="stable")
        bounds = np.searchsorted(self.query[order], np.arange(1, len(self.queries)))
        return [
            np.sort(np.concatenate([by_group[starts[each] : starts[each + 1]] for each in np.unique(groups)]))
            for groups in np.split(self.group[self.document[order]], bounds)
        ]

    def answers(self, query: Numbers, document: Numbers) -> NDArray[np.bool_]:
        """Whether a document, or one of its group, answers a query, bool [q, m].

        Args:
            query: int64 [q], positions in `queries`.
            document: int64 [m], positions in `documents`.
        """
        groups = int(self.group.max()) + 1
        known = np.unique(self.query * groups + self.group[self.document])
        return np.isin(query[:, None] * groups + self.group[document], known)


@dataclass(frozen=True)
class _Rows:
    """The rows of a file."""

    path: Path
    queries: list[str]
    positives: list[str]
    negatives: list[list[str]]
    ids: list[str] | None

    @property
    def groups(self) -> Numbers:
        """Of the positives: those of one text or id are together."""
        return connected(self.positives, *([] if self.ids is None else [self.ids]))

    def take(self, index: Iterable[int]) -> _Rows:
        rows = list(index)
        return _Rows(
            self.path,
            [self.queries[i] for i in rows],
            [self.positives[i] for i in rows],
            [self.negatives[i] for i in rows],
            None if self.ids is None else [self.ids[i] for i in rows],
        )


def load_pairs(data: PairData, split: Split) -> PairSamples:
    """The pairs of one split; no query, document or id stands in both.

    Raises:
        DataError: for files that do not fit (`read_columns`), or a test split that there is not.
    """
    if split == "test" and not holds_out(data):
        return _samples(_read(data, test_file(data)), ())
    rows, skipped = _read(data, data.train), tuple[str, ...]()
    if data.test is not None:
        rows, skipped = _untested(rows, _read(data, data.test))
    held = held_out(data, connected(rows.queries, rows.groups.tolist()))
    rows, test = rows.take(np.flatnonzero(~held)), rows.take(np.flatnonzero(held))
    if split == "test":
        return _samples(test, skipped)
    rows, more = _untested(rows, test)
    return _samples(rows, (*skipped, *more))


def summarise_pairs(data: PairData) -> DataSummary:
    """Training pairs; reads the files."""
    return DataSummary(None, count=len(load_pairs(data, "train")) + (data.holdout or 0), classes=1)


def pair_loader(*_: object, resident: bool) -> PairLoader:  # noqa: ARG001 (positions are small)
    """See `nobackfill.data.open_loader`."""
    from nobackfill.data.loader import PairLoader  # needs torch

    return PairLoader()


def _read(data: PairData, path: Path) -> _Rows:
    columns = read_columns(path, [data.query, data.positive, *data.negatives, *([data.id] if data.id else [])])
    queries, positives = (texts_in(path, name, columns[name]) for name in (data.query, data.positive))
    negatives: list[list[str]] = [[] for _ in queries]
    for name in data.negatives:
        for row, cell in enumerate(columns[name]):
            if cell is None or cell == "":
                continue
            texts = cell if isinstance(cell, list) else [cell]
            negatives[row] += [check_text(path, name, row + 1, text) for text in texts]
    return _Rows(path, queries, positives, negatives, labels_in(path, data.id, columns[data.id]) if data.id else None)


def _untested(rows: _Rows, test: _Rows) -> tuple[_Rows, tuple[str, ...]]:
    """Pairs without what is tested on, and without negatives that are a pair's own document; what was left out."""
    skipped = []
    queries, documents, ids = set(test.queries), set(test.positives), set(test.ids or ())
    fresh = [
        i for i, (query, positive) in enumerate(zip(rows.queries, rows.positives, strict=True))
        if query not in queries and positive not in documents and not (rows.ids and rows.ids[i] in ids)
    ]  # fmt: skip
    if len(fresh) < len(rows.queries):
        if not fresh:
            raise DataError(f"{rows.path}: the query or document of every row is in {test.path} too")
        skipped.append(f"{rows.path}: {len(rows.queries) - len(fresh)} pairs whose query or document is tested on")
        rows = rows.take(fresh)
    kept = [
        [text for text in texts if text != positive and text not in documents]
        for texts, positive in zip(rows.negatives, rows.positives, strict=True)
    ]
    lost = sum(map(len, rows.negatives)) - sum(map(len, kept))
    if lost:
        skipped.append(f"{rows.path}: {lost} negatives that are the pair's own document, or are tested on")
    return replace(rows, negatives=kept), tuple(skipped)


def _samples(rows: _Rows, skipped: tuple[str, ...]) -> PairSamples:
    queries, query = _unique(rows.queries)
    flat = [text for texts in rows.negatives for text in texts]
    documents, place = _unique([*rows.positives, *flat])
    document = place[: len(rows.positives)]
    negatives = np.split(place[len(document) :], np.cumsum([len(texts) for texts in rows.negatives])[:-1])
    groups = np.arange(len(documents)) + len(document)  # of documents that are nobody's positive
    groups[document] = rows.groups
    origin = str(rows.path)
    return PairSamples(
        queries=_texts(queries, "query", origin),
        documents=_texts(documents, "document", origin),
        query=query,
        document=document,
        negatives=tuple(np.unique(each) for each in negatives),
        group=np.unique(groups, return_inverse=True)[1].astype(np.int64),
        origin=origin,
        skipped=skipped,
    )


def _unique(texts: list[str]) -> tuple[list[str], Numbers]:
    """Each text once, by first appearance, and where each of the given ones is."""
    place: dict[str, int] = {}
    positions = [place.setdefault(text, len(place)) for text in texts]
    return [*place], np.array(positions, np.int64)


def _texts(texts: list[str], role: Role, origin: str) -> TextSamples:
    return TextSamples(tuple(texts), np.zeros(len(texts), np.int64), (role,), origin, role=role)
