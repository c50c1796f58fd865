"""How a gallery lies in a collection of Qdrant that somebody else made: which named vectors mean what.

Each later generation has a named vector of its own, `nobackfill_2`, …, and beside it `nobackfill_2_of`: a sketch of the
application's own vector it was made for. Both are written at once. A point whose own vector changed since has no new
vector any more. Payloads are left alone, for an application may replace them whole.

A sketch is eight projections of the unit vector. A hash would not do: Qdrant gives a vector back with other last bits
after a restart of its local mode.
"""

from __future__ import annotations

import functools
import hashlib
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from nobackfill.gallery.stores.adopted_items import unit
from nobackfill.gallery.stores.base import ItemBatch

if TYPE_CHECKING:
    from qdrant_client.models import Record

ADOPTION = "adoption"
NUMBERS = 8  # of a sketch
TOLERANCE = 1e-4  # of each of them; a vector that moves by less is the same
OURS = re.compile(r"nobackfill_([0-9]+)(_of)?")
Vectors = Mapping[str, Sequence[float]]
"""A point's named vectors."""


class Adoption(BaseModel):
    """What was agreed when the collection was adopted.

    Attributes:
        format: of this document.
        vector: name of the application's own vectors, of generation 1.
        dim: of those vectors.
        cosine: whether Qdrant compares them by their cosine; else by inner product, and they have unit norm.
        payload_keys: what is known of an item; None: its whole payload.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    vector: str
    dim: int
    cosine: bool
    payload_keys: tuple[str, ...] | None = None


def vector_name(number: int) -> str:
    """Of the vectors of a later generation."""
    return f"nobackfill_{number}"


def sketch_name(number: int) -> str:
    """Of the sketches beside them."""
    return f"nobackfill_{number}_of"


def later_generations(names: Collection[str]) -> list[int]:
    """Numbers of the generations that a collection with these named vectors has room for, in order."""
    return [number for number in begun(names) if vector_name(number) in names and sketch_name(number) in names]


def begun(names: Iterable[str]) -> list[int]:
    """The same, and those of which a killed process has made, or left, one of the two named vectors only."""
    return sorted({int(match[1]) for name in names if (match := OURS.fullmatch(name))})


def sketches(vectors: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Of each vector [n, dim], float64 [n, `NUMBERS`]."""
    rows = unit(vectors)
    projected: NDArray[np.float64] = rows.astype(np.float64) @ _directions(rows.shape[1])
    return projected


def generations_of(adoption: Adoption, later: Sequence[int], points: Sequence[Vectors]) -> list[int | None]:
    """The generation of each point: the newest whose sketch is that of its own vector; None without an own vector."""
    known = [place for place, vectors in enumerate(points) if vectors.get(adoption.vector) is not None]
    found: list[int | None] = [None] * len(points)
    if not known:
        return found
    for place, own in zip(known, sketches([points[place][adoption.vector] for place in known]), strict=True):
        found[place] = 1
        for number in later:
            then = points[place].get(sketch_name(number))
            if then is not None and np.abs(np.asarray(then) - own).max() <= TOLERANCE:
                found[place] = number
    return found


def version(own: Sequence[float]) -> int:
    """A number that changes with the application's own vector."""
    return int.from_bytes(hashlib.sha256(np.asarray(own, np.float32).tobytes()).digest()[:7], "big")


def point_of(item: str) -> int | str | None:
    """The point id that an item's id is written for, None for what is no point id."""
    if item.isdecimal() and item.isascii():
        return int(item) if str(int(item)) == item and int(item) < 2**64 else None
    try:
        return item if str(uuid.UUID(item)) == item else None
    except ValueError:
        return None


def shown(adoption: Adoption, payload: dict[str, object] | None) -> dict[str, object]:
    """The part of a point's payload that the gallery shows."""
    keys = adoption.payload_keys
    return {key: value for key, value in (payload or {}).items() if keys is None or key in keys}


def named_vectors(points: Iterable[Record]) -> list[dict[str, Sequence[float]]]:
    """Of each point, by name."""
    return [dict(point.vector or {}) for point in points]


def grouped(
    adoption: Adoption, points: Sequence[Record], numbers: Sequence[int | None], *, payloads: bool
) -> list[ItemBatch]:
    """Points as items, a batch for each generation."""
    groups: dict[int, list[Record]] = {}
    for point, number in zip(points, numbers, strict=True):
        if number is not None:
            groups.setdefault(number, []).append(point)
    return [
        ItemBatch(
            [str(point.id) for point in group],
            number,
            unit(
                [point.vector[adoption.vector if number == 1 else vector_name(number)] for point in group],
                all_norms=number > 1 or adoption.cosine,
            ),
            [shown(adoption, point.payload) for point in group] if payloads else [],
            [version(point.vector[adoption.vector]) for point in group],
        )
        for number, group in sorted(groups.items())
    ]


@functools.lru_cache(maxsize=8)
def _directions(dim: int) -> NDArray[np.float64]:
    """The same on every machine: uniform values of variance 1, float64 [dim, `NUMBERS`]."""
    drawn = hashlib.shake_128(b"nobackfill sketch").digest(4 * NUMBERS * dim)
    uniform = np.frombuffer(drawn, "<u4").astype(np.float64) / 2**32
    made: NDArray[np.float64] = (np.sqrt(12) * (uniform - 0.5)).reshape(dim, NUMBERS)
    return made
