"""Planning a backfill: how many items a target means, which ones, and in which order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Scalar
from nobackfill.gallery.job import (
    PIECE,
    PROGRESS,
    Job,
    read_job,
    read_progress,
    remove_pieces,
    tallied,
    write_job,
    write_pieces,
    write_progress,
)
from nobackfill.gallery.orders import ORDERS, Order
from nobackfill.gallery.scope import scope_filter
from nobackfill.gallery.stores.base import Store

Target = str | int
"""`all`, a share of the whole such as `25%`, or a number of items that are to have new vectors."""
SWEEPS = 10  # rounds for items that came while the others were replaced


@dataclass(frozen=True)
class Wanted:
    """What a new backfill is to do; one that is resumed goes on as it was planned.

    Attributes:
        target: see `Target`; what has new vectors already counts.
        order: see `ORDERS`. All but `oldest` hold the ids of all old items in memory.
        batch_size: items a batch.
        keep_old: keep the old vectors.
        seed: of the random order.
        scope: payload values of the items it is held to.
    """

    target: Target
    order: Order
    batch_size: int
    keep_old: bool
    seed: int
    scope: Mapping[str, Scalar]


@dataclass(frozen=True)
class Plan:
    """What a backfill is about to do.

    Attributes:
        job: its journal.
        total: items of the gallery, or of the scope.
        new: how many of them have vectors of the newest generation already.
        resumed: whether the job had been begun before.
    """

    job: Job
    total: int
    new: int
    resumed: bool

    @property
    def batches(self) -> int:
        """Transactions it will take."""
        return -(-(self.job.items - self.job.done) // self.job.batch_size)


def wanted_items(target: Target, total: int) -> int:
    """How many of `total` items a target means; raises `GalleryError` for what is none."""
    if isinstance(target, int) and not isinstance(target, bool) and target > 0:
        return min(target, total)
    if isinstance(target, str):
        if target == "all":
            return total
        share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", target.strip())
        if share and 0 < float(share[1]) <= 100:
            return round(float(share[1]) / 100 * total)
        if re.fullmatch(r"[1-9]\d*", target.strip()):
            return min(int(target), total)
    raise GalleryError(
        f"--target {target!r}: expected a share of the whole such as 25%, all, or a number of items such as 10000"
    )


def wants_all(target: str) -> bool:
    """Whether a target is the whole, so that items which come meanwhile belong to it."""
    return target == "all" or ("%" in target and wanted_items(target, 10**9) == 10**9)


def plan_job(store: Store, generation: int, wanted: Wanted) -> Plan:
    """Write down which items are to be replaced, and a journal that counts none of them as done.

    Args:
        store: of the gallery, locked.
        generation: number of the newest one.
        wanted: as asked for.
    """
    where = scope_filter(wanted.scope)
    counts = store.counts(where)
    total, new = sum(counts.values()), counts.get(generation, 0)
    left = max(0, wanted_items(wanted.target, total) - new)
    former = read_job(store)
    if former is not None:  # over; killed while it cleaned up, it may have left pieces behind
        write_job(store, former.model_copy(update={"stopped": not former.ended}))
    chosen = itertools.islice(ORDERS[wanted.order](store, generation, wanted.seed, where), left) if left else iter(())
    pieces, items = write_pieces(store, 0, chosen)
    for number in range(pieces, former.pieces if former else 0):
        store.write(PIECE.format(number), None)
        store.write(PROGRESS.format(number), None)
    job = Job(
        generation=generation,
        target=str(wanted.target),
        scope=dict(wanted.scope),
        order=wanted.order,
        seed=wanted.seed,
        keep_old=wanted.keep_old,
        batch_size=wanted.batch_size,
        pieces=pieces,
        items=items,
        ended=not items,
    )
    write_job(store, job)
    return Plan(job, total, new, resumed=False)


def sweep(store: Store, job: Job) -> Job:
    """Add pieces with items that came, became old again, or failed and were changed since; under the gallery's lock."""
    _settle(store, job, again=True)
    failed = {name for number in range(job.pieces) for name in read_progress(store, number).errors}

    def left() -> Iterator[str]:
        for number in sorted(store.counts(scope_filter(job.scope))):
            if number < job.generation:
                for ids in store.ids(number, where=scope_filter(job.scope)):
                    yield from (name for name in ids if name not in failed)

    pieces, items = write_pieces(store, job.pieces, left())
    grown = job.model_copy(update={"pieces": job.pieces + pieces, "items": job.items + items})
    if items:
        write_job(store, grown)
    return grown


def end_job(store: Store, job: Job) -> Job:
    """Count together what the pieces say, and remove them; under the gallery's lock."""
    _settle(store, job, again=False)
    ended = tallied(store, job).model_copy(update={"ended": True, "rate": 0.0})
    write_job(store, ended)
    remove_pieces(store, ended)
    return ended


def _settle(store: Store, job: Job, *, again: bool) -> None:
    """Take off the failures what is none any more: items that are gone, or have new vectors by now.

    Args:
        store: of the gallery, locked.
        job: of which nobody works on a piece.
        again: take off also those that are still old, but were changed since, for they get another turn.
    """
    for number in range(job.pieces):
        progress = read_progress(store, number)
        if not progress.errors:
            continue
        now = store.versions(list(progress.errors))
        changed = [name for name, version in now.items() if progress.error_versions.get(name, version) != version]
        items = [each for each in store.fetch(changed) if each.generation >= job.generation] if changed else []
        new = {name for each in items for name in each.ids}
        gone = progress.errors.keys() - now.keys()
        off = gone | new | (set(changed) if again else set())
        if off:
            update = {
                "missing": progress.missing + len(gone),
                "already": progress.already + len(new),
                "errors": {name: reason for name, reason in progress.errors.items() if name not in off},
                "error_versions": {
                    name: version for name, version in progress.error_versions.items() if name not in off
                },
            }
            write_progress(store, number, progress.model_copy(update=update))
