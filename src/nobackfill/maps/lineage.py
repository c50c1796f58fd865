"""What a fitted run notes of the two models: whose vectors it takes, and every older space that it searches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nobackfill.files import write_text
from nobackfill.maps.pairs import Pairs
from nobackfill.maps.task import Candidate
from nobackfill.models import OlderSpace, runfolder
from nobackfill.models.spec import spec_text

BASE = "base.json"  # the model whose vectors a run takes


def note_lineage(pairs: Pairs, candidates: Sequence[Candidate]) -> None:
    """Write both into the run folder of each candidate that takes the vectors of one model, as far as they are known.

    A map into the old space also searches whatever the old model's own vectors search.
    """
    for one in candidates:
        if one.inputs != "x":
            continue
        to_old = one.direction == "to-old"
        space = pairs.new_space if to_old else pairs.old_space
        if space is not None:
            write_text(one.folder / BASE, json.dumps(space.model_dump(), indent=2) + "\n")
        if to_old and pairs.old_prefixes:
            _add_prefixes(one.folder, pairs.old_prefixes)


def _add_prefixes(run: Path, older: tuple[OlderSpace, ...]) -> None:
    """Behind the run's nearest older space; written again after a kill, nothing changes."""
    spec = runfolder.load_spec(run)
    longer = spec.model_copy(update={"prefixes": (spec.prefixes[0], *older)})
    write_text(run / runfolder.SPEC, spec_text(longer))
