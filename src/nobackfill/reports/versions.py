"""The versions that decide a report's numbers."""

from __future__ import annotations

import platform
from importlib import metadata

from nobackfill import __version__

LIBRARIES = ("torch", "torchvision", "timm", "numpy")


def versions() -> dict[str, str]:
    """Of this package, Python and those libraries that are installed."""
    found = {"nobackfill": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
