"""Replacing a gallery's old vectors, batch by batch, as a job that can be killed anywhere.

A batch is replaced at one moment, and doing it twice changes nothing, so after any number of kills the gallery holds
what a run without a stop would have left.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from nobackfill.errors import GalleryError
from nobackfill.gallery.embedders.base import Embedder
from nobackfill.gallery.job import Job, plan_job, planned_batch, read_job, remove_plan, write_job
from nobackfill.gallery.lineage import load_manifest
from nobackfill.gallery.orders import Order
from nobackfill.gallery.retries import with_retries
from nobackfill.gallery.stores.base import ItemBatch, Store, UnreachableError
from nobackfill.progress import bar


def run_backfill(
    store: Store,
    embedder: Embedder,
    *,
    budget: float | None,
    order: Order,
    batch_size: int,
    keep_old: bool,
    seed: int,
) -> Job:
    """See `Gallery.backfill`."""
    with store.lock() as still_ours:
        manifest = load_manifest(store)
        newest = manifest.generations[-1]
        if manifest.number(embedder.fingerprint) != manifest.newest:
            raise GalleryError(f"{store.url}: a backfill needs the newest generation, {newest.name}; give its run")
        job = read_job(store)
        if job is None or job.finished or job.generation != manifest.newest:
            job = plan_job(
                store,
                manifest.newest,
                budget=budget,
                order=order,
                batch_size=batch_size,
                keep_old=keep_old,
                seed=seed,
            )
        try:
            with bar(f"backfill {store.url}", job.items, done=job.items_done, log=True) as advance:
                job = _replace_all(store, job, embedder, newest.dim, still_ours, advance)
        except UnreachableError as error:
            raise GalleryError(
                f"{store.url}: does not answer ({error}); progress is saved, and the same command resumes"
            ) from error
        remove_plan(store, job)
        if not job.keep_old:
            store.compact(forget_kept=False)
    return job


def _replace_all(
    store: Store,
    job: Job,
    embedder: Embedder,
    dim: int,
    still_ours: Callable[[], None],
    advance: Callable[[str], None],
) -> Job:
    """Embed and replace what is left of the plan; returns the journal as it is then."""
    started, before = time.perf_counter(), job.seconds
    read: deque[list[str]] = deque()  # batches that the embedder has taken, and not answered yet

    def batches() -> Iterator[list[str]]:
        for number in range(job.done, job.batches):
            read.append(planned_batch(store, number))
            yield read[-1]

    results = embedder.embed(batches())
    for number in range(job.done, job.batches):
        embedded = next(results, None)
        if embedded is None:
            raise GalleryError(f"the embedder ended after {number} of {job.batches} batches")
        ids = read.popleft()
        rows = embedded.rows(ids, dim)
        with_retries(still_ours)
        if embedded.ids:
            items = ItemBatch(list(embedded.ids), job.generation, rows, [])
            with_retries(partial(store.replace, items, keep_old=job.keep_old))
        job = job.model_copy(
            update={
                "done": number + 1,
                "replaced": job.replaced + len(rows),
                "errors": {**job.errors, **embedded.errors},
                "seconds": round(before + time.perf_counter() - started, 3),
            }
        )
        with_retries(partial(write_job, store, job))
        for _ in ids:
            advance(f"{len(job.errors)} errors" if job.errors else "")
    return job
