"""Counters of a gallery, read back by Prometheus's own parser."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import COUNT, IDS, NEW_VECTORS, OLD_VECTORS, SECOND, embed, fresh, upgraded

from nobackfill.cli.app import run
from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, open_store

prometheus = pytest.importorskip("prometheus_client")
OLD_NAME, NEW_NAME = "first", "second"


def samples(text: str) -> dict[tuple[str, str], float]:
    """Metric and last label → value, of galleries."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name.removeprefix("nobackfill_"), next((sample.labels[key] for key in ("generation", "verb")
                                                        if key in sample.labels), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("nobackfill_") and "le" not in sample.labels
        and not sample.name.endswith("_created")
    }  # fmt: skip


class Counted:
    """A gallery that is measured, and what its registry shows."""

    def __init__(self, gallery: Gallery) -> None:
        from nobackfill.gallery.metrics import measured

        self.registry = prometheus.CollectorRegistry()
        self.gallery = measured(gallery, self.registry)

    def __getitem__(self, key: tuple[str, str]) -> float | None:
        return samples(prometheus.generate_latest(self.registry).decode()).get(key)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return upgraded(open_store(f"faiss:{tmp_path / 'store'}"))


def test_searches_writes_and_errors_are_counted(gallery: Gallery) -> None:
    counted = Counted(gallery)
    made = counted.gallery
    assert made.search(NEW_VECTORS[:5], 3, SECOND.fingerprint) == gallery.search(NEW_VECTORS[:5], 3, SECOND.fingerprint)
    made.search(OLD_VECTORS[:2], 3, "a" * 64)
    made.search(OLD_VECTORS[:2], 3, "a" * 64)
    made.upsert(IDS[:4], NEW_VECTORS[:4], fingerprint=SECOND.fingerprint)
    assert made.delete([*IDS[:3], "unknown"]) == 3
    assert made.set_payloads({IDS[3]: {"a": 1}, "unknown": {}}) == 1
    for _ in range(2):
        with pytest.raises(GalleryError):
            made.search(OLD_VECTORS[:2], 3, "unknown")
    assert counted["queries_total", NEW_NAME] == 5
    assert counted["queries_total", OLD_NAME] == 4
    assert counted["search_seconds_count", OLD_NAME] == 2
    assert 0 < (counted["search_seconds_sum", OLD_NAME] or 0) < 60
    assert counted["items_written_total", NEW_NAME] == 4
    assert counted["items_deleted_total", ""] == 3
    assert counted["payloads_written_total", ""] == 1
    assert counted["errors_total", "search"] == 2
    assert counted["errors_total", "upsert"] is None


def test_a_backfill_is_counted_by_the_process_that_does_it(gallery: Gallery) -> None:
    counted = Counted(gallery)
    stops = iter([None, None, None])

    def some(ids: list[str]) -> Embedded:
        next(stops)  # StopIteration at the fourth batch, as a crash would be
        return embed(ids)

    with pytest.raises(RuntimeError):
        gallery.backfill(some, fingerprint=SECOND.fingerprint, batch_size=10)

    def failing(ids: list[str]) -> Embedded:
        made = embed(ids)
        return Embedded(made.ids[1:], np.asarray(made.vectors)[1:], {made.ids[0]: "does not decode"})

    seen = []
    job = counted.gallery.backfill(
        failing,
        fingerprint=SECOND.fingerprint,
        on_batch=lambda *_: seen.append(counted["backfill_remaining_items", NEW_NAME]),
    )
    assert (job.replaced, job.failed) == (COUNT - 3, 3)
    assert counted["backfilled_items_total", NEW_NAME] == COUNT - 30 - 3  # thirty were done before
    assert counted["backfill_failed_items_total", NEW_NAME] == 3
    assert seen[0] == 30
    assert counted["backfill_remaining_items", NEW_NAME] == 0


def test_two_galleries_share_a_registry(tmp_path: Path) -> None:
    from nobackfill.gallery.metrics import measured

    registry = prometheus.CollectorRegistry()
    galleries = [fresh(open_store(f"faiss:{tmp_path / name}")) for name in "ab"]
    for place, gallery in enumerate(galleries):
        measured(gallery, registry).search(OLD_VECTORS[: place + 1], 3, "a" * 64)
    shown = prometheus.generate_latest(registry).decode()
    for place, gallery in enumerate(galleries):
        label = f'nobackfill_queries_total{{gallery="{gallery.store.url}",generation="first"}} {place + 1}.0'
        assert label in shown


def test_the_command_shows_its_counters_at_a_port(
    gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rows, ids = tmp_path / "rows.npy", tmp_path / "ids.txt"
    np.save(rows, NEW_VECTORS)
    url = f"faiss:{tmp_path / 'other'}"
    np.save(tmp_path / "old.npy", OLD_VECTORS)
    ids.write_text("\n".join(map(str, range(COUNT))))
    assert (
        run(["gallery", "create", url, "--vectors", str(tmp_path / "old.npy"), "--ids", str(ids), "--name", "m"]) == 0
    )
    new = ["--vectors", str(rows), "--ids", str(ids), "--name", "n"]
    assert run(["gallery", "upgrade", url, *new]) == 0
    command = ["gallery", "backfill", url, *new, "--metrics-port", str(port)]
    seen: list[dict[Any, float]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set() and not any(each.get(("backfilled_items_total", "n")) for each in seen):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    seen.append(samples(answer.read().decode()))
            except OSError:  # not yet there
                time.sleep(0.02)

    looking = threading.Thread(target=look)
    looking.start()
    assert run([*command, "--batch-size", "10", "--max-rate", "40"]) == 0
    ended.set()
    looking.join()
    assert seen[-1]["backfilled_items_total", "n"] >= 10
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        capsys.readouterr()
        taken_port = str(taken.getsockname()[1])
        assert run([*command[:-1], taken_port]) == 2
        assert f"port {taken_port}" in capsys.readouterr().err


def test_a_gallery_that_is_not_measured_does_not_import_it(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, nobackfill.gallery.metrics\n"
        "from nobackfill.gallery import Gallery, Generation\n"
        f"made = Gallery.create('faiss:{tmp_path / 'store'}', Generation.named('m', 3), [])\n"
        "made.search(np.ones((1, 3), np.float32), 1, 'name:m')\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "sys.modules['prometheus_client'] = None\n"  # as if it were not installed
        "try:\n    nobackfill.gallery.metrics.measured(made)\n"
        "except Exception as error:\n    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == "metrics: need their extra: pip install 'nobackfill[metrics]'"
