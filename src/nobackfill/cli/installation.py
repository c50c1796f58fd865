"""What an installation has and lacks: packages by extra, devices, the cache and stores, each as plain data."""

from __future__ import annotations

import importlib.util
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from nobackfill.errors import NobackfillError, one_line

EXTRAS = {
    "train": "train, run, demo, check; embed and evaluate with trained models; the networks of fit",
    "text": "import-text, import-clip; text models",
    "sentences": "models given as sentence:FOLDER; export --format sentence-transformers",
    "onnx": "export --format onnx",
    "ray": "--ray of embed and gallery backfill",
    "tensorboard": "train --tensorboard",
    "postgres": "galleries at postgresql://…",
    "qdrant": "galleries at qdrant:…",
    "lance": "galleries at lance:…",
    "metrics": "gallery backfill --metrics-port",
    "milvus": "galleries at milvus:…",
}
"""What each extra is for; those for developers are left out."""
STORE_SECONDS = 15.0


@dataclass(frozen=True)
class Extra:
    """An extra of the distribution.

    Attributes:
        name: as in `pip install 'nobackfill[name]'`.
        needed_by: verbs and options that do not work without it.
        lacking: its packages that are missing or too old, such as `torch>=2.11 (2.9 is installed)`.
    """

    name: str
    needed_by: str
    lacking: list[str]


@dataclass(frozen=True)
class Device:
    """A device that models compute on.

    Attributes:
        name: PyTorch's, such as `cuda:0`.
        model: what it is.
        bf16: whether `precision: auto` uses bf16 there.
    """

    name: str
    model: str
    bf16: bool


@dataclass(frozen=True)
class Cache:
    """The cache folder.

    Attributes:
        folder: where it is, or will be.
        exists: whether it is there.
        size: bytes in its files.
        owner: numeric user id; None where there are none, or no folder.
        mode: permissions in octal digits; None likewise.
        problem: why it cannot be used; None if it can.
    """

    folder: str
    exists: bool
    size: int
    owner: int | None
    mode: str | None
    problem: str | None


@dataclass(frozen=True)
class StoreState:
    """A store that was asked for its gallery.

    Attributes:
        url: without credentials.
        answers: whether it could be asked; true for a database without a gallery, false for a folder that is missing.
        state: what it answered, or why it did not.
    """

    url: str
    answers: bool
    state: str


def packages() -> tuple[dict[str, str | None], list[Extra]]:
    """Versions of all packages that the base install and the extras name (None: not installed), and the extras.

    Both are empty where nobackfill runs from a source tree without being installed.
    """
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in metadata.requires("nobackfill") or []]
    except metadata.PackageNotFoundError:
        return {}, []
    versions: dict[str, str | None] = {}
    lacking: dict[str, list[str]] = {name: [] for name in EXTRAS}
    for requirement in requirements:
        if requirement.name == "nobackfill":
            continue
        base = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        groups = [name for name in EXTRAS if requirement.marker and requirement.marker.evaluate({"extra": name})]
        if not base and not groups:
            continue
        version = versions.setdefault(requirement.name, _version(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}" + (f" ({version} is installed)" if version else "")
            for name in groups if not base else []:
                lacking[name].append(wanted)
    return versions, [Extra(name, EXTRAS[name], lacking[name]) for name in EXTRAS]


def devices() -> tuple[list[Device], str | None]:
    """The devices that PyTorch sees, and why there are none, if so. PyTorch is imported only if it is installed."""
    if importlib.util.find_spec("torch") is None:
        return [], "PyTorch is not installed"
    try:
        import torch

        from nobackfill.training.precision import choose_precision

        found = [torch.device("cpu")]
        found += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            found.append(torch.device("mps"))
        bf16 = [choose_precision("auto", device)[0] == "bf16" for device in found]
        models = [torch.cuda.get_device_name(each) if each.type == "cuda" else each.type.upper() for each in found]
    except (ImportError, OSError, RuntimeError) as error:
        return [], f"PyTorch does not work: {one_line(error)}"
    return [Device(str(each), model, has) for each, model, has in zip(found, models, bf16, strict=True)], None


def cache() -> Cache:
    """The cache folder as it is; makes nothing."""
    from nobackfill.cache import cache_folder

    folder = cache_folder()
    try:
        status = folder.stat()
    except FileNotFoundError:
        return Cache(str(folder), False, 0, None, None, None)
    except OSError as error:
        return Cache(str(folder), False, 0, None, None, f"cannot be read: {error.strerror}")
    problem = None
    if not stat.S_ISDIR(status.st_mode):
        problem = "is not a folder"
    elif os.name == "posix" and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        problem = "every user can replace what it keeps; run `chmod o-w` on it"
    elif not os.access(folder, os.W_OK):
        problem = "this user cannot write to it; set NOBACKFILL_CACHE to a folder of your own"
    owner, mode = (status.st_uid, f"{stat.S_IMODE(status.st_mode):04o}") if os.name == "posix" else (None, None)
    return Cache(str(folder), True, sum(_sizes(folder)), owner, mode, problem)


def ask_stores(urls: list[str], seconds: float = STORE_SECONDS) -> list[StoreState]:
    """Ask all stores at once for their galleries; one that takes longer than `seconds` does not answer."""
    from nobackfill.gallery.stores.address import without_credentials

    states: dict[int, StoreState] = {}

    def ask(number: int) -> None:
        states[number] = _ask(urls[number])

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(urls))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {seconds:.0f} s"
    return [states.get(number) or StoreState(without_credentials(url), False, late) for number, url in enumerate(urls)]


def _ask(url: str) -> StoreState:
    from nobackfill.gallery.lineage import MANIFEST, load_manifest
    from nobackfill.gallery.stores.address import LOCAL, Address, without_credentials
    from nobackfill.gallery.stores.registry import open_store

    shown = without_credentials(url)
    try:
        address = Address.parse(url)
        if address.scheme in LOCAL and not Path(address.location).exists():
            return StoreState(shown, False, "nothing there")  # to ask some stores would make their folder
        store = open_store(url)
        try:
            if store.read(MANIFEST) is None:
                return StoreState(shown, True, "answers; no gallery there yet")
            newest = load_manifest(store).generations[-1]
            return StoreState(shown, True, f"answers; {sum(store.counts().values())} items, newest model {newest.name}")
        finally:
            store.close()
    except NobackfillError as error:
        return StoreState(shown, False, str(error).removeprefix(f"{shown}: "))
    except Exception as error:  # of a client library: its text may quote the address, so only its kind is shown
        return StoreState(shown, False, f"failed with {type(error).__name__}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 (of many files)
            except OSError:  # removed meanwhile
                continue
