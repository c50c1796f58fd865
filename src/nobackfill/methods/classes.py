"""What rival methods want to know of each class of old vectors: centre, and how far its members lie from it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def by_class(vectors: Tensor, labels: Tensor, classes: int) -> Iterator[tuple[int, Tensor]]:
    """Class number and its vectors, float32 [m, d], of every class that has any."""
    order = torch.argsort(labels, stable=True)
    ends = torch.bincount(labels, minlength=classes).cumsum(dim=0)
    for number, rows in enumerate(torch.tensor_split(order, ends[:-1])):
        if len(rows):
            yield number, vectors[rows].float()


def class_centres(vectors: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean vector of each class, float32 [classes, d], not renormalised; 0 for a class without a vector."""
    centres = torch.zeros(classes, vectors.shape[1])
    for number, members in by_class(vectors, labels, classes):
        centres[number] = members.mean(dim=0)
    return centres


def largest_usual(values: Tensor) -> float:
    """The largest value that is no outlier: at most 1.5 interquartile ranges above the third quartile; of [m], m ≥ 1.

    Quartiles are order statistics, as AdvBCT's code takes them; of fewer than four values all count.
    """
    ordered = values.sort().values
    count = len(ordered)
    if count < 4:
        return float(ordered[-1])
    low, high = ordered[count // 4], ordered[3 * count // 4]
    return float(ordered[ordered <= high + 1.5 * (high - low)][-1])
