"""The encoders by what they take. To add one: its line in `ENCODERS`."""

from __future__ import annotations

from nobackfill.config import Modality
from nobackfill.models.encoder import Encoder
from nobackfill.models.text import TextEncoder
from nobackfill.models.vectors import VectorEncoder

ENCODERS: dict[Modality, type[Encoder]] = {"image": Encoder, "text": TextEncoder, "vector": VectorEncoder}
