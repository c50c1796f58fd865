"""Counters of a gallery for Prometheus (extra `metrics`). A gallery that is not `measured` pays nothing for them.

    from prometheus_client import start_http_server

    gallery = measured(Gallery.open("postgresql://localhost/shop#items"))
    start_http_server(9000)

Each series has the labels `gallery` (its URL without credentials) and, where it says which model, `generation`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from numpy.typing import ArrayLike

from nobackfill.errors import ConfigError, GalleryError
from nobackfill.gallery.embedders.base import Embedder
from nobackfill.gallery.embedders.functions import Function
from nobackfill.gallery.gallery import Gallery
from nobackfill.gallery.items import Where
from nobackfill.gallery.job import Job, Progress, progress_of, read_job, tallied
from nobackfill.gallery.lineage import Manifest, load_manifest
from nobackfill.gallery.orders import Order
from nobackfill.gallery.planning import Plan, Target
from nobackfill.gallery.searching import Hit
from nobackfill.gallery.stores.base import Payload, Store
from nobackfill.gallery.worker import OnBatch

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds
SECONDS = 5.0  # between two looks at what all processes have left to do


@dataclass(frozen=True)
class _Families:
    """The metrics of one registry, of all galleries that are measured there."""

    queries: Counter
    seconds: Histogram
    written: Counter
    deleted: Counter
    payloads: Counter
    backfilled: Counter
    failed: Counter
    remaining: Gauge
    errors: Counter


_FAMILIES: WeakKeyDictionary[CollectorRegistry, _Families] = WeakKeyDictionary()
_MAKING = threading.Lock()


def measured(gallery: Gallery, registry: CollectorRegistry | None = None) -> Gallery:
    """The same gallery, whose searches, writes and backfills are counted.

    Args:
        gallery: as it was opened; calls of it itself are not counted.
        registry: of prometheus_client; None: its default one, which `start_http_server` shows.

    Raises:
        GalleryError: if the extra is missing.
    """
    return _MeasuredGallery(gallery.store, gallery.manifest, gallery.scope, _families(registry))


@contextlib.contextmanager
def serving(gallery: Gallery, port: int) -> Iterator[Gallery]:
    """The gallery, measured, and its counters at `http://…:port/metrics` for as long as this lasts.

    Raises:
        ConfigError: if the port cannot be had.
        GalleryError: if the extra is missing.
    """
    counted = measured(gallery)
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port)
    except OSError as error:
        raise ConfigError(f"port {port}: {error.strerror or error}; choose another") from None
    try:
        yield counted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _families(registry: CollectorRegistry | None) -> _Families:
    try:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram
    except ImportError as error:
        raise GalleryError("metrics: need their extra: pip install 'nobackfill[metrics]'") from error
    where = REGISTRY if registry is None else registry

    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nobackfill_{name}", text, ("gallery", *labels), registry=where)

    with _MAKING:
        if where not in _FAMILIES:
            labels = ("gallery", "generation")
            _FAMILIES[where] = _Families(
                queries=counter("queries", "Queries answered, by their model.", "generation"),
                seconds=Histogram(
                    "nobackfill_search_seconds", "Seconds a search took, of one query or more.", labels,
                    buckets=BUCKETS, registry=where,
                ),
                written=counter("items_written", "Items added or replaced.", "generation"),
                deleted=counter("items_deleted", "Items removed."),
                payloads=counter("payloads_written", "Payloads replaced."),
                backfilled=counter("backfilled_items", "Items given a new vector by this process.", "generation"),
                failed=counter("backfill_failed_items", "Items that kept their old vector.", "generation"),
                remaining=Gauge(
                    "nobackfill_backfill_remaining_items", "Items of the plan whose turn is to come, of all processes.",
                    labels, registry=where,
                ),
                errors=counter("errors", "Calls that ended in an error.", "verb"),
            )  # fmt: skip
        return _FAMILIES[where]


class _MeasuredGallery(Gallery):
    """See `measured`."""

    def __init__(
        self, store: Store, manifest: Manifest, scope: Mapping[str, object] | None, families: _Families
    ) -> None:
        super().__init__(store, manifest, scope)
        self._metrics = families

    def search(
        self,
        queries: ArrayLike,
        k: int,
        fingerprint: str,
        *,
        where: Where | None = None,
        remember: bool = False,
    ) -> list[list[Hit]]:
        started = time.perf_counter()
        with self._counted("search"):
            found = super().search(queries, k, fingerprint, where=where, remember=remember)
        labels = self.store.url, self._named(fingerprint)
        self._metrics.seconds.labels(*labels).observe(time.perf_counter() - started)
        self._metrics.queries.labels(*labels).inc(len(found))
        return found

    def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        payloads: Sequence[Payload] | None = None,
        *,
        fingerprint: str,
    ) -> None:
        with self._counted("upsert"):
            super().upsert(ids, vectors, payloads, fingerprint=fingerprint)
        self._metrics.written.labels(self.store.url, self._named(fingerprint)).inc(len(ids))

    def delete(self, ids: Sequence[str]) -> int:
        with self._counted("delete"):
            removed = super().delete(ids)
        self._metrics.deleted.labels(self.store.url).inc(removed)
        return removed

    def set_payloads(self, payloads: Mapping[str, Payload]) -> int:
        with self._counted("set_payloads"):
            changed = super().set_payloads(payloads)
        self._metrics.payloads.labels(self.store.url).inc(changed)
        return changed

    def backfill(
        self,
        embed: Embedder | Function,
        *,
        fingerprint: str | None = None,
        target: Target = "all",
        order: Order = "random",
        batch_size: int = 256,
        keep_old: bool = True,
        seed: int = 0,
        max_rate: float | None = None,
        announce: Callable[[Plan], None] | None = None,
        on_batch: OnBatch | None = None,
    ) -> Job:
        counting = _Backfill(self.store, self._metrics, load_manifest(self.store).generations[-1].name)

        def begun(plan: Plan) -> None:
            counting.begin(plan)
            if announce is not None:
                announce(plan)

        def after(piece: int, progress: Progress) -> None:
            counting.count(piece, progress)
            if on_batch is not None:
                on_batch(piece, progress)

        with self._counted("backfill"):
            job = super().backfill(
                embed,
                fingerprint=fingerprint,
                target=target,
                order=order,
                batch_size=batch_size,
                keep_old=keep_old,
                seed=seed,
                max_rate=max_rate,
                announce=begun,
                on_batch=after,
            )
        counting.left(job)
        return job

    @contextlib.contextmanager
    def _counted(self, verb: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._metrics.errors.labels(self.store.url, verb).inc()
            raise

    def _named(self, fingerprint: str) -> str:
        """Of a model that was just found in the lineage."""
        known = {generation.fingerprint: generation.name for generation in self.manifest.generations}
        if fingerprint not in known:  # another process upgraded
            self.manifest = load_manifest(self.store)
        return self.manifest.generations[self.manifest.number(fingerprint) - 1].name


@dataclass
class _Backfill:
    """Counts what this process does of a job. A piece says what was done of it by all processes that had it.

    Attributes:
        seen: of each piece, items replaced and failed when it was last looked at.
        looked: when what is left was last asked for.
    """

    store: Store
    metrics: _Families
    generation: str
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    looked: float = 0.0

    def begin(self, plan: Plan) -> None:
        """What is done already was not done by this process."""
        for piece in range(plan.job.pieces):
            progress = progress_of(self.store, plan.job, piece)
            if progress is None:
                break  # the job has ended
            self.seen[piece] = progress.replaced, len(progress.errors)
        self.left(plan.job)

    def count(self, piece: int, progress: Progress) -> None:
        """After a batch."""
        replaced, failed = self.seen.get(piece, (0, 0))
        self.seen[piece] = progress.replaced, len(progress.errors)
        labels = self.store.url, self.generation
        self.metrics.backfilled.labels(*labels).inc(progress.replaced - replaced)
        self.metrics.failed.labels(*labels).inc(len(progress.errors) - failed)
        if time.monotonic() - self.looked > SECONDS:
            job = read_job(self.store)
            if job is not None:
                self.left(tallied(self.store, job))

    def left(self, job: Job) -> None:
        """What is left to do, of a journal that is up to date."""
        self.looked = time.monotonic()
        self.metrics.remaining.labels(self.store.url, self.generation).set(max(0, job.items - job.done))
