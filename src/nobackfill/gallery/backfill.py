"""Replacing a gallery's old vectors, piece by piece, as a job that can be killed anywhere and shared by processes.

A batch is replaced at one moment, and only items that are as they were when they were read: one that was removed is
counted, one that was changed is embedded again. Doing a batch twice changes nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from nobackfill.errors import GalleryError
from nobackfill.gallery.embedders.base import Embedder
from nobackfill.gallery.filters import Scalar
from nobackfill.gallery.job import Job, lock_of, progress_of, read_job, stop_job, tallied
from nobackfill.gallery.lineage import load_manifest
from nobackfill.gallery.planning import SWEEPS, Plan, Wanted, end_job, plan_job, sweep, wants_all
from nobackfill.gallery.scope import same_scope, scope_filter
from nobackfill.gallery.stores.base import LockTakenError, Store, UnreachableError
from nobackfill.gallery.worker import OnBatch, Pace, Worker
from nobackfill.progress import bar

POLL = 0.5  # seconds until a piece that another process holds is looked at again
WAIT = 120.0  # seconds for another process to plan the job (it reads all ids), or to end it


def run_backfill(
    store: Store,
    embedder: Embedder,
    wanted: Wanted,
    *,
    max_rate: float | None,
    announce: Callable[[Plan], None] | None,
    on_batch: OnBatch | None,
) -> Job:
    """See `Gallery.backfill`."""
    if wanted.batch_size < 1:
        raise GalleryError(f"batch_size: expected at least 1, found {wanted.batch_size}")
    if max_rate is not None and not max_rate > 0:
        raise GalleryError(f"max_rate: expected more than 0 items a second, or None, found {max_rate}")
    with _waiting_lock(store):
        manifest = load_manifest(store)  # not before: a rollback may have forgotten the newest generation meanwhile
        newest = manifest.generations[-1]
        if manifest.number(embedder.fingerprint) != manifest.newest:
            raise GalleryError(f"{store.url}: a backfill needs the newest generation, {newest.name}; give its run")
        plan = _resumed(store, manifest.newest, wanted.scope) or plan_job(store, manifest.newest, wanted)
    if announce is not None:
        announce(plan)
    if plan.job.ended:
        return plan.job
    try:
        with bar(f"backfill {store.url}", plan.job.items, done=plan.job.done, log=True) as advance:
            worker = Worker(store, plan.job, embedder, newest.dim, Pace(max_rate), advance, on_batch)
            return _finished(store, plan.job, worker)
    except UnreachableError as error:
        raise GalleryError(
            f"{store.url}: does not answer ({error}); progress is saved, and the same command resumes"
        ) from error


def _resumed(store: Store, generation: int, scope: Mapping[str, Scalar]) -> Plan | None:
    """The unfinished job, if there is one that goes to the newest generation."""
    job = read_job(store)
    if job is None or job.finished:
        return None
    if job.generation != generation:
        stop_job(store)
        return None
    if not same_scope(job.scope, scope):
        raise GalleryError(
            f"{store.url}: an unfinished backfill is held to {job.scope or 'all items'}; finish it with that scope, or "
            "abandon it without one (`gallery backfill --abandon-job`)"
        )
    counts = store.counts(scope_filter(scope))
    return Plan(tallied(store, job), sum(counts.values()), counts.get(generation, 0), resumed=True)


def _finished(store: Store, job: Job, worker: Worker) -> Job:
    """Work until no piece is left, by this process or another one."""
    finished: set[int] = set()
    for _ in range(SWEEPS):
        while not _no_piece_left(store, job, worker, finished):
            time.sleep(POLL)  # others are at the last pieces
        with _waiting_lock(store):
            current = _current(store, job)
            if current.ended:
                return current
            if current.pieces == job.pieces and wants_all(current.target):
                current = sweep(store, current)
            if current.pieces == job.pieces:
                return end_job(store, current)
            job = current  # there are more: swept here, or by another process
    with _waiting_lock(store):  # items come in faster than they are replaced
        current = _current(store, job)
        return current if current.ended else end_job(store, current)


def _no_piece_left(store: Store, job: Job, worker: Worker, finished: set[int]) -> bool:
    """Work on every piece that nobody else works on; returns whether all are finished."""
    for number in range(job.pieces):
        if number in finished:
            continue
        try:
            with store.lock(lock_of(number)) as still_ours:
                if _current(store, job).ended:
                    return True
                progress = progress_of(store, job, number)
                if progress is None:
                    continue  # another process has ended the job since; `_current` will say so
                if not progress.finished:
                    worker.run(number, still_ours)
                finished.add(number)
        except LockTakenError:
            continue
    return len(finished) == job.pieces


def _current(store: Store, job: Job) -> Job:
    """The journal; raises `GalleryError` if it is no longer this job's."""
    current = read_job(store)
    if current is None or current.id != job.id or current.stopped:
        raise GalleryError(f"{store.url}: this backfill was given up by another command; nothing more is written")
    return current


@contextlib.contextmanager
def _waiting_lock(store: Store) -> Iterator[None]:
    """The gallery's lock; another process that begins or ends the same job holds it for a while."""
    until = time.monotonic() + WAIT
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(store.lock())
                break
            except LockTakenError:
                if time.monotonic() > until:
                    raise
                time.sleep(POLL / 5)
        yield
