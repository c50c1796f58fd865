"""A backfill on record: the journal, the pieces of its plan, and how far each piece is.

The pieces are written before the journal, so that half a plan counts for nothing. A piece holds up to 16,384 ids and
has a document of its own for its progress, so several processes can work at once, each on a piece that it has locked.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from nobackfill.errors import GalleryError
from nobackfill.gallery.formats import parse_document
from nobackfill.gallery.orders import Order
from nobackfill.gallery.retries import with_retries
from nobackfill.gallery.stores.base import LockTakenError, Store

JOB, PIECE, PROGRESS = "job", "piece-{:06d}", "progress-{:06d}"
PIECE_ITEMS = 16_384
OVERDUE = 30.0  # seconds after which a process that says nothing is taken for dead; clocks may differ by less
ERRORS = 1000  # that the journal names; the others are counted


class Progress(BaseModel):
    """How far a piece is.

    Attributes:
        format: of this document.
        items: in the piece; the first `done` of them are finished.
        replaced: items that have new vectors.
        already: items that had one when their turn came.
        missing: items that were removed since the plan was made.
        errors: item → why it kept its old vector; all of the piece.
        error_versions: item → its version when it failed, to see whether it was changed since.
        seconds: spent on it.
        rate: items a second, lately.
        at: when that was, in seconds since 1970.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    items: int
    done: int = 0
    replaced: int = 0
    already: int = 0
    missing: int = 0
    errors: dict[str, str] = {}
    error_versions: dict[str, int] = {}
    seconds: float = 0.0
    rate: float = 0.0
    at: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether every item had its turn."""
        return self.done >= self.items


class Job(BaseModel):
    """The journal of a backfill. What it counts is brought up to date by `tallied`, and when the job ends.

    Attributes:
        format: of the journal and of the plan.
        id: tells this job from others.
        generation: number of the generation it goes to.
        target: as it was asked for: `all`, a share such as `25%`, or a number of items.
        scope: payload values of the items it is held to; empty: all items.
        pieces: of the plan.
        items: in the plan.
        ended: whether it is over.
        stopped: whether it was given up, so that the next backfill makes a new plan.
        done: items that had their turn; `replaced`, `already`, `missing`: see `Progress`.
        failed: items that kept their old vector; `errors` says why, for the first 1,000 of them.
        seconds: spent, of all processes together.
        rate: items a second, lately, of all processes that are at work together.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    generation: int
    target: str
    scope: dict[str, str | bool | int | float | None] = {}
    order: Order
    seed: int
    keep_old: bool
    batch_size: int
    pieces: int
    items: int
    ended: bool = False
    stopped: bool = False
    done: int = 0
    replaced: int = 0
    already: int = 0
    missing: int = 0
    failed: int = 0
    errors: dict[str, str] = {}
    seconds: float = 0.0
    rate: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self.ended or self.stopped


def read_job(store: Store) -> Job | None:
    """The journal, if there is one; raises `GalleryError` if it is damaged or of another format."""
    data = with_retries(partial(store.read, JOB))
    return None if data is None else parse_document(Job, data, f"{store.url}: its journal")


def write_job(store: Store, job: Job) -> None:
    """Replace the journal."""
    store.write(JOB, job.model_dump_json(indent=1).encode())


def read_piece(store: Store, number: int) -> list[str]:
    """Ids of one piece; raises `GalleryError` if it is missing or damaged."""
    name = PIECE.format(number)
    data = with_retries(partial(store.read, name))
    try:
        ids: list[str] = json.loads(data or b"")
    except ValueError:
        raise GalleryError(f"{store.url}: damaged: {name!r} of the plan; `gallery backfill --abandon-job`") from None
    return ids


def read_progress(store: Store, number: int) -> Progress:
    """How far one piece is; raises `GalleryError` if that is damaged."""
    data = with_retries(partial(store.read, PROGRESS.format(number)))
    if data is None:
        raise GalleryError(f"{store.url}: damaged: {PROGRESS.format(number)!r} is missing")
    return parse_document(Progress, data, f"{store.url}: {PROGRESS.format(number)!r}")


def progress_of(store: Store, job: Job, number: int) -> Progress | None:
    """As `read_progress`; None where the job has ended or was given up since, and its plan is removed."""
    try:
        return read_progress(store, number)
    except GalleryError:
        now = read_job(store)
        if now is not None and now.id == job.id and not now.finished:
            raise
        return None


def write_progress(store: Store, number: int, progress: Progress) -> None:
    """Replace what is known of a piece."""
    data = progress.model_dump_json().encode()
    with_retries(partial(store.write, PROGRESS.format(number), data))


def write_pieces(store: Store, first: int, ids: Iterable[str]) -> tuple[int, int]:
    """Write ids as pieces numbered from `first`; returns how many pieces and how many ids."""
    pieces = items = 0
    for piece in _cut(ids):
        number = first + pieces
        store.write(PROGRESS.format(number), Progress(items=len(piece)).model_dump_json().encode())
        store.write(PIECE.format(number), json.dumps(piece).encode())
        pieces, items = pieces + 1, items + len(piece)
    return pieces, items


def tallied(store: Store, job: Job) -> Job:
    """The journal with what its pieces have counted until now; as it is now, if another process has ended the job."""
    if job.finished:
        return job
    counted: Mapping[str, list[float]] = {
        name: [] for name in ("done", "replaced", "already", "missing", "failed", "seconds", "rate")
    }
    errors: dict[str, str] = {}
    for number in range(job.pieces):
        progress = progress_of(store, job, number)
        if progress is None:
            now = read_job(store)
            return job if now is None else tallied(store, now)
        for name in ("done", "replaced", "already", "missing", "seconds"):
            counted[name].append(getattr(progress, name))
        counted["failed"].append(len(progress.errors))
        counted["rate"].append(_rate_now(progress, job.batch_size))
        for name, reason in progress.errors.items():
            if len(errors) < ERRORS:
                errors[name] = reason
    return job.model_copy(update={**{name: sum(values) for name, values in counted.items()}, "errors": errors})


def _rate_now(progress: Progress, batch_size: int) -> float:
    """Items a second of the process that is at a piece: none, if its next batch is long overdue."""
    if progress.finished or not progress.rate:
        return 0.0
    silent = time.time() - progress.at
    return progress.rate if silent < OVERDUE + 3 * batch_size / progress.rate else 0.0


def stop_job(store: Store) -> Job | None:
    """Give up an unfinished job, under the gallery's lock; the next backfill makes a new plan.

    Returns:
        The job that was given up.

    Raises:
        LockTakenError: if a process is at work on it.
    """
    job = read_job(store)
    if job is None or job.finished:
        return None
    _no_piece_taken(store, job)  # else a worker between two pieces would see the mark, and end
    write_job(store, job.model_copy(update={"stopped": True}))  # nobody takes another piece from here on
    try:
        _no_piece_taken(store, job)
    except GalleryError:
        write_job(store, job)
        raise
    return job


def stop_any_job(store: Store) -> None:
    """As `stop_job`, before the gallery goes: a damaged journal is no reason to keep it."""
    try:
        stop_job(store)
    except LockTakenError:
        raise
    except GalleryError:
        pass


def _no_piece_taken(store: Store, job: Job) -> None:
    try:
        for number in range(job.pieces):
            with store.lock(lock_of(number)):
                pass
    except LockTakenError:
        raise LockTakenError(
            f"{store.url}: a backfill is running; stop it (Ctrl-C, its progress is kept), then repeat this command"
        ) from None


def remove_pieces(store: Store, job: Job) -> None:
    """Remove the plan of a job that is over; its journal stays."""
    for number in range(job.pieces):
        store.write(PIECE.format(number), None)
        store.write(PROGRESS.format(number), None)


def lock_of(number: int) -> str:
    """Name of the lock on a piece."""
    return f"backfill-{number:06d}"


def _cut(ids: Iterable[str]) -> Iterator[list[str]]:
    piece: list[str] = []
    for name in ids:
        piece.append(name)
        if len(piece) == PIECE_ITEMS:
            yield piece
            piece = []
    if piece:
        yield piece
