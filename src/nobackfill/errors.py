"""Every error a user can cause. Each message is one line: the thing, its value, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NobackfillError(Exception):
    """Base of all errors below; the command line prints it as one line and exits with its `code`."""

    code = 2


class ConfigError(NobackfillError):
    """A config file, an override or a command-line value is not usable."""


class DataError(NobackfillError):
    """A data set, an image or an array is not usable."""


class RunError(NobackfillError):
    """A run folder is missing, damaged, taken, or does not fit its use."""


class TrainingError(NobackfillError):
    """A training run cannot go on."""


class GalleryError(NobackfillError):
    """A gallery cannot be used as asked."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known one, or else the first dozen of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    more = ", …" if len(known) > 12 else ""
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known[:12])}{more}"
