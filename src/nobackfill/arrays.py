"""Arrays whose type of number is not known before they are looked at: rows of somebody's file, weights of a model."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
