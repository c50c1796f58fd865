"""The versions that decide a report's numbers."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from nobackfill import __version__

LIBRARIES = ("torch", "torchvision", "timm", "numpy")


def versions() -> dict[str, str]:
    """Of this package, Python and those libraries that are installed."""
    known = {"nobackfill": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            # A loaded library also knows its build, such as 2.11.0+cu130.
            known[name] = str(getattr(sys.modules.get(name), "__version__", None) or metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return known
