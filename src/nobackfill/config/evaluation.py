"""An evaluation of two models, and the names that scenarios and reports share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from nobackfill.config.data import DataConfig
from nobackfill.config.section import Section

INDEPENDENT = "independent"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # a folder's name too


class EvaluationConfig(Section):
    """One evaluation: the test split as queries of one run and gallery of another (by default the same)."""

    query: Path
    gallery: Path | None = None
    data: DataConfig
    distance: Literal["cosine", "l2"] = "cosine"
    """`l2`: rank by Euclidean distance; vectors are not normalised."""
