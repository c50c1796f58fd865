"""A backfill as planned work: which items in which batches, and the journal of what is done.

The plan is written down before anything changes, the journal last, so that half a plan counts for nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict

from nobackfill.errors import GalleryError
from nobackfill.gallery.formats import parse_document
from nobackfill.gallery.orders import ORDERS, Order
from nobackfill.gallery.retries import with_retries
from nobackfill.gallery.stores.base import Store

JOB, BATCH = "job", "plan-{:06d}"


class Job(BaseModel):
    """The journal of a backfill.

    Attributes:
        format: of the journal and of the plan.
        generation: number of the generation it goes to.
        batches: in the plan; `done` of them are finished.
        items: in the plan.
        replaced: items that have new vectors.
        errors: item → why it kept its old vector.
        seconds: spent so far, over all starts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    generation: int
    order: Order
    seed: int
    keep_old: bool
    batch_size: int
    batches: int
    items: int
    done: int = 0
    replaced: int = 0
    errors: dict[str, str] = {}
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether every batch is done."""
        return self.done == self.batches

    @property
    def items_done(self) -> int:
        """Items in the batches that are done."""
        return min(self.items, self.done * self.batch_size)


def read_job(store: Store) -> Job | None:
    """The journal, if there is one; raises `GalleryError` if it is damaged or of another format."""
    data = store.read(JOB)
    return None if data is None else parse_document(Job, data, f"{store.url}: its journal")


def write_job(store: Store, job: Job) -> None:
    """Replace the journal."""
    store.write(JOB, job.model_dump_json(indent=1).encode())


def rewind_job(store: Store) -> None:
    """Count no batch of the job as done; for what takes new vectors away again."""
    job = read_job(store)
    if job is not None:
        write_job(store, job.model_copy(update={"done": 0, "replaced": 0, "errors": {}}))


def plan_job(
    store: Store,
    generation: int,
    *,
    budget: float | None = None,
    order: Order = "random",
    batch_size: int = 256,
    keep_old: bool = False,
    seed: int = 0,
) -> Job:
    """Write down which items go in which batch, and a journal that counts none of them as done.

    Args:
        store: of the gallery.
        generation: number of the newest one.
        budget: how many items at most; see `limit_of`.
        order: see `ORDERS`. All but `oldest` hold the ids of all old items in memory.
        batch_size: items a batch.
        keep_old: keep the old vectors.
        seed: of the random order.
    """
    limit = limit_of(budget, sum(store.counts().values()))
    batches = items = 0
    for batch in _batches(itertools.islice(ORDERS[order](store, generation, seed), limit), batch_size):
        store.write(BATCH.format(batches), json.dumps(batch).encode())
        batches, items = batches + 1, items + len(batch)
    former = read_job(store)  # killed while it cleaned up, it may have left batches behind
    for number in range(batches, former.batches if former else 0):
        store.write(BATCH.format(number), None)
    job = Job(
        generation=generation,
        order=order,
        seed=seed,
        keep_old=keep_old,
        batch_size=batch_size,
        batches=batches,
        items=items,
    )
    write_job(store, job)
    return job


def limit_of(budget: float | None, total: int) -> int | None:
    """A budget as a number of items: a fraction of `total` (0 < budget ≤ 1, not an int) or a number; None is no limit.

    Raises:
        GalleryError: for anything else.
    """
    if budget is None:
        return None
    if budget <= 0 or (isinstance(budget, float) and budget > 1):
        raise GalleryError(
            f"--budget {budget}: expected a fraction of the gallery, above 0 up to 1, or a number of items"
        )
    return round(budget * total) if isinstance(budget, float) else budget


def planned_batch(store: Store, number: int) -> list[str]:
    """Ids of one batch of the plan; raises `GalleryError` if it is missing."""
    name = BATCH.format(number)
    data = with_retries(partial(store.read, name))
    if data is None:
        raise GalleryError(f"{store.url}: damaged: the plan {name!r} is missing")
    ids: list[str] = json.loads(data)
    return ids


def remove_plan(store: Store, job: Job) -> None:
    """Remove the plan of a finished job; its journal stays."""
    for number in range(job.batches):
        store.write(BATCH.format(number), None)


def _batches(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(ids)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
