"""Every error a user can cause. Each message is one line: the thing, its value, what was expected, what to do."""

from __future__ import annotations

import difflib
import importlib
import unicodedata
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

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of characters that act instead of being seen."""
JOINERS = "\u200c\u200d"
"""Format characters that words of several scripts, and emoji, are written with."""


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
    return visible(" ".join(str(error).split())[:length])


def visible(text: str, keep: str = "") -> str:
    """A text of unknown origin as it may be printed: control and direction characters appear as escapes.

    Else an id or a name could move the cursor, forge a line or turn the text around (U+202E).

    Args:
        text: any text.
        keep: control characters that stay, such as line breaks.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape").decode("ascii")
        if unicodedata.category(each) in HIDDEN and each not in keep and each not in JOINERS
        else each
        for each in text
    )


def shortened(value: object, length: int = 80) -> str:
    """The `repr` of a value of unknown origin, at most `length` characters of it."""
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to print those of many digits
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        value = value[: length + 1]
    try:
        text = repr(value)
    except ValueError:  # such an integer inside
        text = f"a {type(value).__name__}"
    text = visible(text)
    return text if len(text) <= length else f"{text[:length]}…"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known one, or else the first dozen of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    more = ", …" if len(known) > 12 else ""
    names = ", ".join(each if len(each) <= 80 else f"{each[:80]}…" for each in known[:12])
    return f"did you mean {close[0]!r}?" if close else f"known: {visible(names)}{more}"
