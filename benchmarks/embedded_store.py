"""The FAISS folder against LanceDB as the embedded store, and both against bare FAISS.

    python benchmarks/embedded_store.py --items 100000

Each part runs in processes of its own, both sides after each other, on one thread. `--kills 200` for the full test.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.base import ItemBatch, Store
from nobackfill.gallery.stores.registry import open_store

DIM, BATCH, K = 128, 256, 10
STORES = ("faiss", "lance")


def unit(count: int, seed: int) -> Any:
    rows = np.random.default_rng(seed).standard_normal((count, DIM), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def name(number: int) -> str:
    return f"item-{number:08d}"


def filled(url: str, vectors: Any) -> Store:
    store = open_store(url)
    store.create()
    for number in (1, 2):
        store.add_generation(number, DIM)
    for start in range(0, len(vectors), 8192):
        some = vectors[start : start + 8192]
        ids = [name(number) for number in range(start, start + len(some))]
        store.insert(ItemBatch(ids, 1, some, [{"n": number % 100} for number in range(len(some))]))
    return store


def milliseconds(action: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return round(1000 * statistics.median(taken), 2)


def written() -> int:
    return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])


def speed(url: str, items: int, batches: int) -> dict[str, float]:
    import faiss

    faiss.omp_set_num_threads(1)
    vectors, queries, newer = unit(items, 0), unit(64, 1), unit(batches * BATCH, 2)
    bare = faiss.IndexFlatIP(DIM)
    bare.add(vectors)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    store = filled(url, vectors)
    figures: dict[str, float] = {"insert_items_per_s": round(items / (time.perf_counter() - started))}
    scores, rows = bare.search(queries, K)
    found = store.search({1: queries}, K)[1]
    figures["exact"] = float(
        found.ids == [[name(row) for row in line] for line in rows.tolist()]
        and np.allclose(np.stack(found.scores), scores, atol=1e-5)
    )

    def search(label: str) -> None:
        figures[f"one_ms{label}"] = milliseconds(lambda: store.search({1: queries[:1]}, K), 20)
        figures[f"batch64_ms{label}"] = milliseconds(lambda: store.search({1: queries}, K), 5)

    search("")
    figures["bare_one_ms"] = milliseconds(lambda: bare.search(queries[:1], K), 20)
    figures["bare_batch64_ms"] = milliseconds(lambda: bare.search(queries, K), 5)
    order, seconds, bytes_before = np.random.default_rng(3).permutation(items), [], written()
    for batch in range(batches):
        some = slice(batch * BATCH, (batch + 1) * BATCH)
        started = time.perf_counter()
        store.replace(ItemBatch([name(row) for row in order[some]], 2, newer[some], []), keep_old=False)
        seconds.append(time.perf_counter() - started)
    half = batches // 2
    figures["replace_items_per_s"] = round(batches * BATCH / sum(seconds))
    figures["replace_later_by_earlier"] = round(sum(seconds[half:]) / sum(seconds[:half]), 2)
    figures["bytes_per_replaced_item"] = round((written() - bytes_before) / (batches * BATCH))
    search("_after")
    figures["memory_mb"] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    return figures


def replace_on(url: str, batches: int) -> None:
    store, newer = open_store(url), unit(batches * BATCH, 2)
    print("ready", flush=True)
    for batch in range(batches):
        ids = [name(number) for number in range(batch * BATCH, (batch + 1) * BATCH)]
        store.replace(ItemBatch(ids, 2, newer[batch * BATCH : (batch + 1) * BATCH], []), keep_old=False)


def child(*arguments: object) -> Any:
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE)


def killed(url: str, kills: int) -> dict[str, int]:
    """Kills a backfill again and again: every item is there once, and each batch is new as a whole or old."""
    batches, wrong, died = 40, 0, 0
    store = filled(url, unit(batches * BATCH, 0))
    for seed in range(kills):
        process = child("replace", url, batches)
        process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 1.0))
        died += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen: dict[str, int] = {}
        doubled = 0
        for items in store.scan(4096):
            doubled += sum(one in seen for one in items.ids)
            seen |= dict.fromkeys(items.ids, items.generation)
        parts = [{seen.get(name(batch * BATCH + row)) for row in range(BATCH)} for batch in range(batches)]
        wrong += doubled > 0 or len(seen) != batches * BATCH or any(len(part) > 1 for part in parts)
        if store.counts().get(2) == batches * BATCH:
            store.upsert(ItemBatch([name(row) for row in range(BATCH)], 1, unit(BATCH, 0), [{}] * BATCH))
    return {"kills": kills, "killed_at_work": died, "kills_wrong": wrong}


def write_shared(url: str, who: str, times: int) -> None:
    store, vectors = open_store(url), unit(9, 5)
    for number in range(times):
        ids = [f"{who}-{number}-{row}" for row in range(8)]
        store.upsert(ItemBatch([*ids, "shared"], 1, vectors, [{}] * 9))


def writers(url: str, times: int = 10) -> dict[str, int]:
    store = filled(url, unit(10, 0))
    running = [child("write", url, who, times) for who in range(4)]
    failed = sum(process.wait() != 0 for process in running)
    lost = 4 * 8 * times + 11 - sum(store.counts().values()) + 4 * times - store.versions(["shared"])["shared"]
    return {"writers_failed": failed, "writes_lost": lost}


def damaged(url: str, folder: Path, tries: int = 16) -> dict[str, int]:
    """Overwrites or cuts one file at a time: a sentence, or an answer, but no traceback and no other items."""
    rng, ends = random.Random(0), {"sentence": 0, "answer": 0, "traceback": 0}
    filled(url, unit(2000, 0)).close()
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    for number in range(tries):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        path = files[number % len(files)]
        data = bytearray(path.read_bytes())
        if number % 2:
            path.write_bytes(data[: len(data) // 2])
        else:
            start = rng.randrange(len(data))
            data[start : start + 64] = rng.randbytes(64)
            path.write_bytes(data)
        store = open_store(url)
        try:
            store.counts()
            store.search({1: unit(1, 1)}, K)
            sum(len(items.ids) for items in store.scan(500))
            ends["answer"] += 1
        except GalleryError:
            ends["sentence"] += 1
        except BaseException as error:
            ends["traceback"] += 1
            print(f"{path.name}: {type(error).__name__}: {error}"[:160], file=sys.stderr)
        store.close()
    return {f"damaged_{end}": count for end, count in ends.items()}


def main() -> None:
    if sys.argv[1:2] == ["replace"]:
        return replace_on(sys.argv[2], int(sys.argv[3]))
    if sys.argv[1:2] == ["write"]:
        return write_shared(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    if sys.argv[1:2] == ["speed"]:
        return print(json.dumps(speed(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000])
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    report: dict[str, dict[str, Any]] = {}
    for scheme in STORES:
        with tempfile.TemporaryDirectory() as folder:
            figures: dict[str, Any] = {}
            for items in options.items:
                process = child("speed", f"{scheme}:{folder}/{items}", items, options.batches)
                figures[str(items)] = json.loads(process.communicate()[0])
                shutil.rmtree(f"{folder}/{items}")
                print(scheme, items, figures[str(items)], flush=True)
            figures |= writers(f"{scheme}:{folder}/writers")
            figures |= damaged(f"{scheme}:{folder}/damaged", Path(folder, "damaged"))
            print(scheme, figures, flush=True)
            figures |= killed(f"{scheme}:{folder}/killed", options.kills)
            report[scheme] = figures
            print(scheme, figures, flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
