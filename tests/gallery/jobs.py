"""A backfill in a child process, to be killed; for the tests."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))  # where a child finds this module
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["nobackfill.gallery", "faiss", "pyarrow.parquet", "psycopg"])
COUNT, OLD, NEW = 2000, 16, 24


def vectors(dim: int) -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(dim).standard_normal((COUNT, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def start(url: str, writes: int | None = None) -> Any:
    """Backfill the gallery at `url`; with `writes`, die just after so many changes to the store."""
    process = CONTEXT.Process(target=_run, args=(url, writes))
    process.start()
    return process


def _run(url: str, writes: int | None) -> None:
    from nobackfill.gallery import Embedded, Gallery, open_store

    store, new = open_store(url), vectors(NEW)
    if writes is not None:
        left = writes

        def dying(name: str) -> Any:
            real = getattr(store, name)

            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                answer = real(*arguments, **options)
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(60)
                return answer

            return call

        for name in ("write", "replace", "compact"):
            setattr(store, name, dying(name))

    def embed(ids: list[str]) -> Embedded:
        return Embedded(ids, new[[int(name) for name in ids]], {})

    Gallery.open(store).backfill(embed, fingerprint="b", batch_size=100)
