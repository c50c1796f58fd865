"""Labelled texts as a kind of sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.config import TextData
from nobackfill.config.data import TextFiles
from nobackfill.data.grouping import connected, hold_out
from nobackfill.data.samples import TextSamples
from nobackfill.data.splits import Split
from nobackfill.data.summary import DataSummary
from nobackfill.data.text_files import labels_in, read_columns, texts_in
from nobackfill.errors import DataError

if TYPE_CHECKING:
    import torch

    from nobackfill.data.loader import TextLoader

UNLABELLED = "unlabelled"


def load_texts(data: TextData, split: Split) -> TextSamples:
    """The texts of one split; a text never stands in both.

    The classes are the sorted union over both splits, so a class keeps its number in each of them. Without labels every
    text is of one class.

    Raises:
        DataError: for files that do not fit (`read_columns`), or a test split that there is not.
    """
    training = _read(data, data.train)
    tested = _read(data, data.test) if data.test else ([], [])
    names = tuple(sorted({*training[1], *tested[1]}))
    numbers = {name: number for number, name in enumerate(names)}

    def samples(path: Path, texts: list[str], labels: list[str]) -> TextSamples:
        return TextSamples(tuple(texts), np.array([numbers[each] for each in labels], np.int64), names, str(path))

    if split == "test" and not holds_out(data):
        return samples(test_file(data), *tested)
    untested = _without(samples(data.train, *training), frozenset(tested[0]), data)
    held = held_out(data, connected(untested.texts))
    return untested.take(np.flatnonzero(held if split == "test" else ~held))


def summarise_texts(data: TextData) -> DataSummary:
    """Training texts and classes; reads the files."""
    samples = load_texts(data, "train")
    return DataSummary(None, count=len(samples) + (data.holdout or 0), classes=len(samples.class_names))


def text_loader(
    samples: TextSamples,
    preprocessing: object,  # noqa: ARG001 (it has made the tokens)
    data: TextData,  # noqa: ARG001 (texts have one view only)
    device: torch.device,
    *,
    resident: bool,  # noqa: ARG001 (tokens are small)
) -> TextLoader:
    """See `nobackfill.data.open_loader`; the samples have their tokens."""
    from nobackfill.data.loader import TextLoader  # needs torch

    if samples.tokens is None:
        raise DataError(f"{samples.origin}: these texts have not been tokenized")
    return TextLoader(samples.tokens, device)


def holds_out(data: TextFiles) -> bool:
    """Whether the test split is of the training rows."""
    return data.holdout is not None or data.test_fraction is not None


def held_out(data: TextFiles, groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which training rows make the test split, bool [n]; none unless `holds_out`.

    Args:
        data: the section of a config.
        groups: of the training rows that are in no file of test rows, int64 [n]: those that stay together.
    """
    if data.test_fraction is not None:
        return hold_out(groups, round(data.test_fraction * len(groups)), str(data.train))
    if data.holdout is None:
        return np.zeros(len(groups), np.bool_)
    if data.holdout >= len(groups):
        raise DataError(f"data.holdout: {data.holdout} must be less than the {len(groups)} rows of {data.train}")
    return hold_out(groups, data.holdout, str(data.train))


def test_file(data: TextFiles) -> Path:
    """The file of test rows; raises `DataError` where there is no test split."""
    if data.test is None:
        raise DataError(f"{data.train}: no test split; set data.test, data.test_fraction or data.holdout")
    return data.test


def _read(data: TextData, path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a file."""
    columns = read_columns(path, [data.text, *([] if data.label is None else [data.label])])
    texts = texts_in(path, data.text, columns[data.text])
    labels = [UNLABELLED] * len(texts)
    return texts, labels if data.label is None else labels_in(path, data.label, columns[data.label])


def _without(samples: TextSamples, tested: frozenset[str], data: TextData) -> TextSamples:
    """The training texts that are not tested on."""
    fresh = np.array([text not in tested for text in samples.texts])
    if fresh.all():
        return samples
    if not fresh.any():
        raise DataError(f"{data.train}: every text of it is in {data.test} too")
    line = f"{data.train}: {int((~fresh).sum())} rows whose text is in {data.test} too"
    return replace(samples.take(np.flatnonzero(fresh)), skipped=(line,))
