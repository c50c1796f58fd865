"""Items and queries, each as its model wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nobackfill.data.preprocessing import Role
    from nobackfill.data.samples import Inputs
    from nobackfill.models.encoder import Encoder
    from nobackfill.models.text import TextEncoder


def encode_as(encoder: Encoder, samples: Inputs, role: Role | None, workers: int = 0) -> NDArray[np.float32]:
    """Embed samples; a model of texts puts the prompt of their role before them, if it has one."""
    if encoder.spec.modality == "text":
        return cast("TextEncoder", encoder).encode(samples, role=role)
    return encoder.encode(samples, workers=workers)
