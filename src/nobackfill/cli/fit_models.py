"""What `nobackfill fit` works on, where two models embed the same texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.cli.fit_inputs import Given
from nobackfill.cli.source import open_data
from nobackfill.errors import ConfigError
from nobackfill.files import write_npy
from nobackfill.maps import Pairs

if TYPE_CHECKING:
    from nobackfill.models.spec import OlderSpace


def embedded_pairs(
    old: Path | None, new: Path | None, data: str | None, split: str, arrays: Path, *, alone: bool
) -> Given | None:
    """The pairs that two models make of a data set, as files in the folder `arrays`; None without models.

    Args:
        old: `--old-model`: run folder, `sentence:FOLDER` or `python:MODULE:FUNCTION`; `new` alike.
        new: `--new-model`.
        data: `--data`.
        split: of it.
        arrays: folder to write to.
        alone: whether no option names vectors.

    Raises:
        ConfigError: if options are missing or do not go together, or both models are the same.
    """
    from nobackfill.data import for_old_model
    from nobackfill.models import load
    from nobackfill.models.roles import encode_as

    if old is None and new is None and data is None:
        return None
    if old is None or new is None or data is None:
        raise ConfigError("--old-model, --new-model and --data: give all three or none")
    if not alone:
        raise ConfigError("--old-model, --new-model: the models make the vectors; leave out --old, --new, --pairs, "
                          "--labels and the names")  # fmt: skip
    samples, workers = open_data(data, split, "fail", None)
    files: dict[str, Path] = {}
    spaces: dict[str, tuple[OlderSpace, ...]] = {}  # of the model itself, and of those before it
    for side, model in (("old", old), ("new", new)):
        encoder = load(str(model))
        spaces[side] = encoder.spec.as_prefixes()
        items = for_old_model(samples) if side == "old" else samples
        made = encode_as(encoder, items.inputs(encoder.spec.modality), "document", workers)  # as a gallery does
        files[side] = write_npy(arrays / f"{side}.npy", made)
    (old_space, *old_prefixes), (new_space, *_) = spaces["old"], spaces["new"]
    if old_space.fingerprint == new_space.fingerprint:
        raise ConfigError(f"--old-model, --new-model: both are {old_space.generation}; an upgrade needs two models")
    labels = None
    if len(np.unique(samples.labels)) > 1:
        labels = write_npy(arrays / "labels.npy", samples.labels)
    pairs = Pairs(
        files["old"],
        files["new"],
        labels,
        old_name=old_space.generation,
        new_name=new_space.generation,
        old_space=old_space,
        new_space=new_space,
        old_prefixes=tuple(old_prefixes),
    )
    return Given(pairs)
