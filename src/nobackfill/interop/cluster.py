"""Embedding on a Ray cluster (extra `ray`): an encoder a worker, batches come back in their order."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nobackfill.arrays import Array
from nobackfill.config import Modality
from nobackfill.data.preprocessing import Role, read_image
from nobackfill.data.samples import Inputs, Samples, TextSamples
from nobackfill.errors import ConfigError, DataError, one_line, require
from nobackfill.models.encoder import Encoder
from nobackfill.models.roles import encode_as
from nobackfill.models.runfolder import load
from nobackfill.models.sentence_encoder import TextFunction, usable

Sound = tuple[list[int], NDArray[np.float32], dict[int, str]]
"""Places of the samples that could be embedded, their vectors, and why the others could not."""


def encode_sound(
    encoder: Encoder | TextFunction, samples: Inputs, workers: int = 0, role: Role | None = "document"
) -> Sound:
    """Embed items that can be; image files that are gone or do not decode are named instead of ending it all.

    So are texts that are no strings, or to which a model that is no run gives no usable vector.

    Raises:
        DataError: if something else is at fault.
    """
    if isinstance(encoder, TextFunction):
        return _sound_texts(encoder, list(samples), role)
    try:
        return list(range(len(samples))), encode_as(encoder, samples, role, workers), {}
    except DataError:
        faults = _faults(samples, encoder.spec.modality)
        if not faults:
            raise
        sound = [place for place in range(len(samples)) if place not in faults]
        return sound, encode_as(encoder, [samples[place] for place in sound], role, workers), faults


def encode_on_cluster(
    run: Path,
    batches: Iterable[Inputs],
    address: str,
    workers: int | None = None,
    role: Role | None = "document",
) -> Iterator[Sound]:
    """Embed batches of samples on a cluster, one after the other as they are asked for.

    Args:
        run: run folder, on a path that every machine sees.
        batches: image files (on paths that every machine sees), uint8 arrays, or texts.
        address: `local` starts a cluster on this machine, `auto` joins the one it belongs to; or `host:port`.
        workers: encoders at work; None takes one a GPU, or else one a core.
        role: of texts.

    Raises:
        MissingPackageError: if Ray is not installed.
        ConfigError: if there is no cluster at the address.
    """
    ray = _joined(address)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = workers or gpus or int(ray.cluster_resources().get("CPU", 1))
        # Pickled, for Arrow would not take lists of paths and arrays alike; they travel between our own workers.
        rows = [{"number": number, "samples": pickle.dumps(batch)} for number, batch in enumerate(batches)]
        made = ray.data.from_items(rows, override_num_blocks=max(1, len(rows))).map_batches(
            _Worker,
            fn_constructor_args=(str(run.resolve()), role),
            compute=ray.data.ActorPoolStrategy(size=count),
            batch_size=1,
            num_gpus=1 if gpus else 0,
        )
        for handler in logging.getLogger("ray.data").handlers:
            handler.setLevel(logging.ERROR)
        for row in made.iter_rows():
            yield pickle.loads(row["made"])  # noqa: S301
    finally:
        ray.shutdown()


def encode_set_on_cluster(
    run: Path, images: Samples, batch_size: int, address: str, workers: int | None
) -> NDArray[np.float32]:
    """A whole data set, as `Encoder.encode_set`; raises `DataError` for a file that does not decode."""
    samples = images.inputs(load(run, "cpu").spec.modality)
    starts = range(0, len(images), batch_size)
    batches = [samples[start : start + batch_size] for start in starts]
    vectors = []
    role = images.role if isinstance(images, TextSamples) else None
    for _, rows, faults in encode_on_cluster(run, batches, address, workers, role):
        if faults:
            raise DataError(next(iter(faults.values())))
        vectors.append(rows)
    return np.concatenate(vectors)


def _joined(address: str) -> ModuleType:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray speaks a lot
    require("ray", "ray.data", what="--ray")
    ray = importlib.import_module("ray")
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # Ray itself would wait for minutes
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=5).close()
        place = {} if address == "local" else {"address": address}
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False, **place)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--ray {address}: no cluster there: {one_line(error)}; use local to start one on this machine"
        ) from error
    return ray


class _Worker:
    """Lives in a process of the cluster."""

    def __init__(self, run: str, role: Role | None) -> None:
        self.encoder, self.role = load(run), role

    def __call__(self, batch: Mapping[str, Array]) -> dict[str, object]:
        batches = [pickle.loads(samples) for samples in batch["samples"]]  # noqa: S301
        made = [pickle.dumps(encode_sound(self.encoder, samples, role=self.role)) for samples in batches]
        return {"number": batch["number"], "made": made}


def _sound_texts(encoder: TextFunction, texts: Sequence[Any], role: Role | None) -> Sound:
    faults = _no_strings(texts)
    places = [place for place in range(len(texts)) if place not in faults]
    vectors = encoder.rows([texts[place] for place in places], role=role)
    good = usable(vectors)
    faults |= {place: "its vector is zero or not finite" for place, fine in zip(places, good, strict=True) if not fine}
    return [place for place, fine in zip(places, good, strict=True) if fine], vectors[good], faults


def _faults(samples: Inputs, modality: Modality) -> dict[int, str]:
    """Samples that are at fault themselves, by their places."""
    if isinstance(samples, np.ndarray) or modality == "vector":
        return {}
    return _no_strings(samples) if modality == "text" else _unreadable(samples)


def _no_strings(texts: Sequence[Any]) -> dict[int, str]:
    kinds = {place: type(text).__name__ for place, text in enumerate(texts) if not isinstance(text, str)}
    return {place: f"expected a string, found {kind}" for place, kind in kinds.items()}


def _unreadable(samples: Sequence[Any]) -> dict[int, str]:
    faults: dict[int, str] = {}
    for place, source in enumerate(samples):
        try:
            read_image(source)
        except DataError as error:
            faults[place] = str(error)
    return faults
