"""What `nobackfill fit` works on, where two models embed the same texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nobackfill.cli.fit_inputs import Given
from nobackfill.cli.source import open_data
from nobackfill.errors import ConfigError
from nobackfill.files import atomic_file
from nobackfill.maps import Pairs

if TYPE_CHECKING:
    from nobackfill.arrays import Array
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
    spaces: dict[str, OlderSpace] = {}
    for side, model in (("old", old), ("new", new)):
        encoder = load(str(model))
        spaces[side] = encoder.spec.as_prefixes()[0]
        items = for_old_model(samples) if side == "old" else samples
        made = encode_as(encoder, items.inputs(encoder.spec.modality), "document", workers)  # as a gallery does
        files[side] = _written(arrays / f"{side}.npy", made)
    if spaces["old"].fingerprint == spaces["new"].fingerprint:
        raise ConfigError(f"--old-model, --new-model: both are {spaces['old'].generation}; an upgrade needs two models")
    labels = None
    if len(np.unique(samples.labels)) > 1:
        labels = _written(arrays / "labels.npy", samples.labels)
    pairs = Pairs(
        files["old"],
        files["new"],
        labels,
        old_name=spaces["old"].generation,
        new_name=spaces["new"].generation,
        old_space=spaces["old"],
        new_space=spaces["new"],
    )
    return Given(pairs)


def _written(path: Path, array: Array) -> Path:
    with atomic_file(path) as temporary:
        np.save(temporary, array)
    return path
