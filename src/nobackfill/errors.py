"""Every error a user can cause. Each message is one line: the thing, its value, what was expected, what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable

PACKAGES = {
    "torch": ("PyTorch", "train"),
    "torchvision": ("torchvision", "train"),
    "timm": ("timm", "train"),
    "accelerate": ("Accelerate", "train"),
    "sklearn": ("scikit-learn", "train"),
    "transformers": ("Transformers", "text"),
    "tokenizers": ("Tokenizers", "text"),
    "sentence_transformers": ("Sentence Transformers", "sentences"),
    "onnx": ("ONNX", "onnx"),
    "onnxruntime": ("ONNX Runtime", "onnx"),
    "onnxscript": ("ONNX Script", "onnx"),
    "ray": ("Ray", "ray"),
    "tensorboard": ("TensorBoard", "tensorboard"),
}
"""Modules of packages that are not in the base install: the package's name, and the extra that installs it."""


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


class MissingPackageError(NobackfillError, ImportError):
    """A package is needed that only an extra installs."""


def require(*modules: str, what: str = "this") -> None:
    """Import modules of `PACKAGES`, or say which extra installs the first one that is missing.

    Raises:
        MissingPackageError: `what` needs that package, and how to install it.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise missing_package(module, what) or error from error


def missing_package(module: str | None, what: str = "this") -> MissingPackageError | None:
    """The error for a module that is not installed (of any depth); None if no extra installs it."""
    name, extra = PACKAGES.get((module or "").partition(".")[0], ("", ""))
    return MissingPackageError(f"{what} needs {name}: pip install 'nobackfill[{extra}]'") if name else None


def one_line(error: object, length: int = 160) -> str:
    """An error of another library as one line of at most `length` characters."""
    return " ".join(str(error).split())[:length]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known one, or else the first dozen of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    more = ", …" if len(known) > 12 else ""
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known[:12])}{more}"
