"""How a gallery lies in a table of PostgreSQL that somebody else made: which columns mean what.

    new-column    each later generation has a nullable vector column of its own in the table, `nobackfill_2`, …, and
                  beside it `nobackfill_2_of`: the hash of the older vectors it was made for. An item whose older vector
                  changed since has no new vector any more.
    same-column   the compatible part of a new vector takes the place of the old one in the application's own column.
                  A table of the side schema says which rows hold one: by their key and the hash of what was written.

A hash takes longer than a comparison of vectors. So the transaction that wrote is noted as well (`nobackfill_2_by`): as
long as it is the last one that wrote the row (`xmin`), nothing can have changed, and no hash is computed.

What else the gallery needs lies in a schema of its own, `nobackfill_<table>_<hash>`: documents and hits, and for
`same-column` the tables `generations` and `kept`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Layout = Literal["new-column", "same-column"]
ADOPTION = "adoption"
FIRST_NEW = 2  # generation 1 is the application's own column


class Adoption(BaseModel):
    """What was agreed when the table was adopted, and the generations since.

    Attributes:
        format: of this document.
        namespace: schema of the table.
        table: its name.
        id_column: unique, of whole numbers, UUIDs or text.
        vector_column: the application's own vectors, of generation 1.
        dim: of those vectors.
        layout: see the module.
        payload_columns: what is known of an item; None: every other column.
        dims: size of the vectors of each later generation.
        metric: of the index on the vector column that searches use, or None.
        index_options: of that index, as PostgreSQL lists them; later columns get the same.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    namespace: str
    table: str
    id_column: str
    vector_column: str
    dim: int
    layout: Layout
    payload_columns: tuple[str, ...] | None = None
    dims: dict[int, int] = {}
    metric: Literal["cosine", "ip", "l2"] | None = None
    index_options: str | None = None

    @property
    def side(self) -> str:
        """The schema of what the gallery makes beside the table."""
        return side_schema(self.namespace, self.table)

    @property
    def newer(self) -> list[int]:
        """Numbers of the generations after the first, in order."""
        return sorted(self.dims)


@dataclass(frozen=True)
class Table:
    """The adoption, and the table as it is now.

    Attributes:
        adoption: as above.
        id_type: of the id column, as PostgreSQL writes it.
        kind: pgvector's type of the vectors.
        columns: payload column → its type.
        partitioned: whether it has partitions; only asked when a table is adopted.
    """

    adoption: Adoption
    id_type: str
    kind: Literal["vector", "halfvec"]
    columns: dict[str, str]
    partitioned: bool = False


def side_schema(namespace: str, table: str) -> str:
    """One schema a table, whose name PostgreSQL does not cut (63 bytes)."""
    digest = hashlib.sha256(f"{namespace}\0{table}".encode()).hexdigest()[:8]
    start = table.encode()[:40].decode(errors="ignore")
    return f"nobackfill_{start}_{digest}"


def column(number: int) -> str:
    """Of the vectors of a later generation."""
    return f"nobackfill_{number}"


def stamp_column(number: int) -> str:
    """Of the hashes beside it."""
    return f"nobackfill_{number}_of"


def writer_column(number: int) -> str:
    """Of the transactions that wrote it."""
    return f"nobackfill_{number}_by"


def columns(number: int) -> tuple[str, str, str]:
    """All that a later generation adds."""
    return column(number), stamp_column(number), writer_column(number)
