"""How a gallery lies around a collection of Milvus that somebody else made: which collections beside it mean what.

milvus-lite cannot add a field to a collection, and a server can add none whose values are written later without
writing the whole row again. So the application's collection is only read. Each later generation has a collection
beside it, `items__nobackfill_adopted__g2`, …, of the same key: the new vector, and the hash of the application's own
vector that it was made for. An item whose own vector changed since, or is gone, has no new vector any more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from nobackfill.gallery.filters import AnyOf, Condition, Equals, Filter, Within
from nobackfill.gallery.stores.base import Floats
from nobackfill.gallery.stores.milvus_connection import NAME, Row
from nobackfill.gallery.stores.milvus_search import PLAIN

ADOPTION = "adoption"
SIDE = "__nobackfill_adopted"  # ends the name of all that a gallery makes
STAMP = "nobackfill_of"  # field of the hash
WHOLE = ("INT8", "INT16", "INT32", "INT64")
Key = int | str


class Adoption(BaseModel):
    """What was agreed when the collection was adopted.

    Attributes:
        format: of this document.
        key: name of its primary key, of texts of at most `key_length` bytes, or (None) of whole numbers.
        key_length: as above.
        vector: name of the application's own vectors, of generation 1.
        dim: of those vectors.
        metric: by which Milvus compares them; vectors have unit norm unless it is COSINE.
        index_type: of their index; later generations get the same.
        index_params: of that index.
        fields: name and type of what else a row has, without vectors.
        dynamic: whether rows may have further values.
        payload_keys: what is known of an item; None: all of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    key: str
    key_length: int | None
    vector: str
    dim: int
    metric: Literal["COSINE", "IP", "L2"]
    index_type: str
    index_params: dict[str, str]
    fields: dict[str, str]
    dynamic: bool
    payload_keys: tuple[str, ...] | None = None

    @property
    def payload_fields(self) -> list[str]:
        """What to ask Milvus for, to know the payload."""
        keys = self.payload_keys
        named = [name for name in self.fields if keys is None or name in keys]
        return [*named, "$meta"] if self.dynamic else named

    def payload(self, row: Row) -> Row:
        """What is known of an item, of a row with those fields."""
        keys = self.payload_keys
        return {
            name: value
            for name, value in row.items()
            if name not in {self.key, self.vector} and (keys is None or name in keys)
        }

    def similarities(self, distances: Floats, norms: Floats) -> Floats:
        """Inner products with unit vectors, of what Milvus says of the application's own; both float32 [n]."""
        if self.metric == "COSINE":
            return distances * norms
        return distances if self.metric == "IP" else ((norms * norms + 1 - distances) / 2).astype(np.float32)

    def keys(self, ids: Sequence[str]) -> dict[str, Key]:
        """The keys that these items' ids are written for; ids of no possible key are left out."""
        found = ((name, self._key(name)) for name in ids)
        return {name: key for name, key in found if key is not None}

    def _key(self, name: str) -> Key | None:
        if self.key_length is not None:
            try:
                return name if len(name.encode()) <= self.key_length and "\0" not in name else None
            except UnicodeEncodeError:
                return None
        digits = name.removeprefix("-")
        short = digits.isascii() and digits.isdecimal() and len(digits) < 20
        return int(name) if short and str(int(name)) == name and -(2**63) <= int(name) < 2**63 else None


def stamp(own: Sequence[float]) -> str:
    """Of the application's own vector: changes with each of its bits."""
    return hashlib.sha256(np.asarray(own, np.float32).tobytes()).hexdigest()[:32]


def version(own: Sequence[float]) -> int:
    """A number that changes with it."""
    return int(stamp(own)[:14], 16)


def literal(value: Key) -> str:
    """As Milvus reads it; milvus-lite does not know the escapes of JSON."""
    if isinstance(value, int):
        return str(value)
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{text}"'


def one_of(key: str, values: Sequence[Key]) -> str:
    """The condition that a key is one of these."""
    return f"{key} in [{', '.join(map(literal, values))}]"


def narrowed(fields: Mapping[str, str], where: Filter | None) -> str:
    """A condition that every row fulfils that fulfils the filter; others may, too: rows are checked."""
    return " and ".join(text for condition in where or () if (text := _narrowed(fields, condition)))


def _narrowed(fields: Mapping[str, str], condition: Condition) -> str:
    if not isinstance(condition, Equals | AnyOf | Within) or not NAME.fullmatch(condition.key):
        return ""
    kind = fields.get(condition.key)
    if isinstance(condition, Within):
        if kind not in WHOLE:  # what a float is rounded to, the two sides may not agree on
            return ""
        low, high = condition.low, condition.high
        parts = [f"{condition.key} >= {math.floor(low)}"] if low is not None else []
        return " and ".join(parts + ([f"{condition.key} <= {math.ceil(high)}"] if high is not None else []))
    values = condition.values if isinstance(condition, AnyOf) else (condition.value,)
    texts = [value for value in values if isinstance(value, str) and PLAIN.fullmatch(value)]
    return one_of(condition.key, texts) if kind == "VARCHAR" and texts and len(texts) == len(values) else ""
