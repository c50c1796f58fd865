"""What an item of a FAISS folder costs while the gallery grows; `gallery.py --growth` runs it.

Each size has a process of its own. Ids are in order; vectors are random. Searches are compared with a bare FAISS index
of the same vectors in the same process, by turns. Times are CPU times of the process, which other work on the machine
disturbs less than the clock; waiting for the disk is not in them.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from nobackfill.gallery import Embedded, Gallery, Generation

PART, PIECE, BATCH, QUERIES, REPEATS = 20_000, 16_384, 1024, 64, 5
Floats = NDArray[np.float32]


def grown(sizes: list[int], dim: int) -> list[dict[str, float]]:
    """Figures for each number of items, and what an item costs beside the smallest gallery's."""
    found = []
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(measured, size, dim).result())
            print(found[-1], flush=True)
    for figures in found:
        for name in [name for name in figures if name.endswith("_per_item")]:
            figures[f"{name}_growth"] = figures[name] / found[0][name]
    return found


def unit(seed: int, count: int, dim: int) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def measured(size: int, dim: int) -> dict[str, float]:
    """A gallery of this size, from its creation to a piece of a backfill."""
    first = Generation(name="first", dim=dim, fingerprint="a")
    second = Generation(name="second", dim=dim + 8, fingerprint="b", compatible_with=("a",))
    with tempfile.TemporaryDirectory() as name:
        url = f"faiss:{name}/store"
        before = written()
        seconds, gallery = timed(lambda: Gallery.create(url, first, batches(size, dim)))
        figures: dict[str, float] = {
            "items": size,
            "dim": dim,
            "create_us_per_item": 1e6 * seconds / size,
            "create_bytes_written_per_item": (written() - before) / size,
            "disk_bytes_per_item": sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file()) / size,
        }
        gallery.store.close()
        before = resident()
        seconds, gallery = timed(lambda: Gallery.open(url))
        figures["open_ms"] = 1000 * seconds
        queries = unit(-1 % 2**32, QUERIES, dim)
        figures["first_search_us_per_item"] = 1e6 * timed(lambda: gallery.search(queries[:1], 10, "a"))[0] / size
        figures["memory_bytes_per_item_beside_vectors"] = (resident() - before) / size - 4 * dim
        searches(gallery, queries, size, dim, figures)
        names, rows = [f"later-{number}" for number in range(1000)], unit(7, 1000, dim)
        seconds, _ = timed(lambda: gallery.upsert(names, rows, fingerprint="a"))
        figures["upsert_us_per_item"] = 1e6 * seconds / len(names)
        figures["search_after_upsert_ms"] = 1000 * timed(lambda: gallery.search(queries[:1], 10, "a"))[0]
        gallery.add_generation(second, unit(8, 2000, dim + 8))
        for order in ("oldest", "random"):
            backfill(gallery, order, size, dim + 8, figures)
        gallery.store.close()
    return figures


def batches(size: int, dim: int) -> Iterator[tuple[list[str], Floats, list[dict[str, object]]]]:
    for start in range(0, size, PART):
        count = min(PART, size - start)
        yield [f"{number:09}" for number in range(start, start + count)], unit(start, count, dim), [{}] * count


def searches(gallery: Gallery, queries: Floats, size: int, dim: int, figures: dict[str, float]) -> None:
    """Medians by turns of the gallery and of bare FAISS."""
    bare = faiss.IndexFlatIP(dim)
    for _, rows, _ in batches(size, dim):
        bare.add(rows)
    for name, count in (("one_query", 1), ("batch_of_64", QUERIES)):
        ours, floor = [], []
        for _ in range(REPEATS):
            ours.append(timed(lambda c=count: gallery.search(queries[:c], 10, "a"))[0])
            floor.append(timed(lambda c=count: bare.search(queries[:c], 10))[0])
        figures[f"{name}_ms"] = 1000 * float(np.median(ours))
        figures[f"{name}_faiss_ms"] = 1000 * float(np.median(floor))
        figures[f"{name}_ratio"] = figures[f"{name}_ms"] / figures[f"{name}_faiss_ms"]
        figures[f"{name}_ns_per_item"] = 1e6 * figures[f"{name}_ms"] / size


def backfill(gallery: Gallery, order: Any, size: int, dim: int, figures: dict[str, float]) -> None:
    """One piece more of new vectors; the plan is made first."""
    started, before = time.process_time(), written()
    planned: list[tuple[float, float]] = []
    new = gallery.store.counts().get(2, 0)

    def embed(ids: list[str]) -> Embedded:
        return Embedded(ids, unit(9, len(ids), dim), {})

    job = gallery.backfill(
        embed,
        fingerprint="b",
        target=new + PIECE,
        order=order,
        batch_size=BATCH,
        announce=lambda _: planned.append((time.process_time(), written())),
    )
    ((moment, bytes_before),) = planned
    figures[f"backfill_{order}_plan_us_per_item"] = 1e6 * (moment - started) / (size if order == "random" else PIECE)
    figures[f"backfill_{order}_us_per_item"] = 1e6 * (time.process_time() - moment) / job.replaced
    figures[f"backfill_{order}_bytes_written_per_item"] = (written() - bytes_before) / job.replaced
    figures[f"backfill_{order}_plan_bytes"] = bytes_before - before


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    answer = action()
    return time.process_time() - started, answer


def written() -> int:
    """Bytes that this process has sent to disks (Linux)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def resident() -> int:
    """Bytes of memory that this process holds (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
