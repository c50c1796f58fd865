"""The ways to make two frozen spaces comparable, by name. To add one: a file with a function, and its line in `FITS`.

Each function looks at pairs (x, y) and gives an encoder of x whose vectors compare with y. Which space is x depends on
the direction: `to-old` takes new vectors into the old space, `to-new` the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nobackfill.errors import require
from nobackfill.evaluation.kinds import GalleryState, Kind
from nobackfill.maps.closed_fits import fit_procrustes, fit_ridge
from nobackfill.maps.fastfill import fit_fastfill
from nobackfill.maps.fct import fit_fct
from nobackfill.maps.lambda_orthogonal import fit_lambda_orthogonal
from nobackfill.maps.low_rank import fit_low_rank
from nobackfill.maps.qdc import fit_qdc
from nobackfill.maps.slerp import fit_slerp
from nobackfill.maps.task import Candidate, Direction, Task
from nobackfill.maps.trained_fits import fit_bt2, fit_bt2_residual, fit_infonce, fit_mlp

Directions = tuple[Direction, ...]
TO_OLD: Directions = ("to-old",)
TO_NEW: Directions = ("to-new",)
EITHER: Directions = ("to-old", "to-new")
BASIS = ("extra_dims", "scales")


@dataclass(frozen=True)
class Fit:
    """One way.

    Attributes:
        make: fits it.
        directions: those it can take.
        trained: by gradients, with PyTorch.
        takes: fields of `Settings` that it looks at; all look at the seed.
    """

    make: Callable[[Task], Iterator[Candidate]]
    directions: Directions
    trained: bool = False
    takes: tuple[str, ...] = ()


def kind_of(candidate: Candidate) -> Kind:
    """What it asks of an operator: a map to the old space leaves the gallery alone, one to the new rewrites it."""
    gallery: GalleryState = "untouched" if candidate.direction == "to-old" else "mapped"
    return Kind(candidate.queries, gallery)


FITS: dict[str, Fit] = {
    "procrustes": Fit(fit_procrustes, EITHER),
    "ridge": Fit(fit_ridge, EITHER),
    "low_rank": Fit(fit_low_rank, EITHER),
    "qdc": Fit(fit_qdc, TO_OLD),
    "slerp": Fit(fit_slerp, TO_OLD),
    "mlp": Fit(fit_mlp, EITHER, trained=True, takes=("hidden",)),
    "infonce": Fit(fit_infonce, EITHER, trained=True),
    "bt2": Fit(fit_bt2, TO_OLD, trained=True, takes=BASIS),
    "bt2_residual": Fit(fit_bt2_residual, TO_OLD, trained=True, takes=("hidden", *BASIS)),
    "fct": Fit(fit_fct, TO_NEW, trained=True, takes=("hidden",)),
    "fastfill": Fit(fit_fastfill, TO_NEW, trained=True, takes=("hidden",)),
    "lambda_orthogonal": Fit(fit_lambda_orthogonal, TO_NEW, trained=True, takes=("hidden",)),
}
"""By name."""
CLOSED_FORMS = ("procrustes", "ridge")
"""Fitted by default also without PyTorch."""
DEFAULT_FITS = (*CLOSED_FORMS, "mlp", "infonce", "bt2")


def default_fits(directions: Sequence[Direction]) -> list[str]:
    """Names of the ways that are taken where none is named: those that map in one of the directions."""
    return [name for name in DEFAULT_FITS if {*FITS[name].directions} & {*directions}]


def require_for(names: Sequence[str]) -> None:
    """Raise `MissingPackageError` if one of these is trained and PyTorch is not installed."""
    for name in names:
        if FITS[name].trained:
            require("torch", "accelerate", what=f"--method {name}")
