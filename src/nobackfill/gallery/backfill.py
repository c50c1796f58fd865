"""Embedding a gallery anew, item by item, as a job that can be killed anywhere.

The plan (which items, in which batches) is written down before anything changes; the journal counts the batches that
are done. A batch is exchanged at one moment, and doing it twice changes nothing, so after any number of kills the
gallery holds what a straight run would have left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from nobackfill.errors import GalleryError
from nobackfill.gallery.gallery import HITS, Gallery, vectors_of
from nobackfill.gallery.lineage import unit_rows
from nobackfill.gallery.store import Items, Store, UnreachableError
from nobackfill.progress import bar

Order = Literal["random", "oldest", "hardest", "crowded", "queried"]
Value = TypeVar("Value")
JOB, CHUNK = "job", "plan-{:06d}"
REFERENCES = 5000  # old vectors among which the nearest one is looked for, by `hardest` and `crowded`
TRIES, PAUSE = 6, 0.5  # seconds before the second try; each further pause is twice as long


@dataclass(frozen=True)
class Embedded:
    """What an embedder makes of some items: vectors [n, dim] of those in `ids`, and why the others are missing."""

    ids: list[str]
    vectors: Any
    missing: Mapping[str, str]


Embed = Callable[[list[str]], Embedded]
"""Item ids to vectors. If it has a method `stream(batches)`, that gets all batches and yields them in their order."""


class Job(BaseModel):
    """The journal of a backfill.

    Attributes:
        generation: number of the generation it goes to.
        batches: in the plan; `done` of them are finished.
        items: in the plan.
        exchanged: items that were exchanged.
        missing: item → why it stayed old.
        seconds: spent so far, over all starts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    generation: int
    order: Order
    seed: int
    keep_old: bool
    batch_size: int
    batches: int
    items: int
    done: int = 0
    exchanged: int = 0
    missing: dict[str, str] = {}
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether every batch is done."""
        return self.done == self.batches


def backfill(
    gallery: Gallery,
    embed: Embed,
    fingerprint: str,
    *,
    budget: float | None = None,
    order: Order = "random",
    batch_size: int = 256,
    keep_old: bool = False,
    seed: int = 0,
) -> Job:
    """Exchange old vectors for those of the newest generation; goes on with an unfinished job, as it was planned.

    Args:
        gallery: upgraded to the new generation before.
        embed: item ids to vectors of the new model.
        fingerprint: of the model that `embed` uses.
        budget: how many items at most: a share of the gallery (0 < budget ≤ 1, not an int) or a number; None: all.
        order: `random`; `oldest` items of the gallery first; `hardest`: those farthest from their nearest neighbour in
            the old space first; `crowded`: those nearest to it first; `queried`: those found most often by searches
            that remember.
        batch_size: items exchanged at one moment.
        keep_old: keep the old vectors, for a rollback.
        seed: of the random order.

    Returns:
        The journal as it is at the end.

    Raises:
        GalleryError: if the model is not the newest generation, another process is at it, or the store does not answer
            for half a minute (the position is kept).
    """
    store = gallery.store
    with store.lock() as still_ours:
        manifest = Gallery.open(store).manifest
        if manifest.number(fingerprint) != manifest.newest:
            newest = manifest.generations[-1].name
            raise GalleryError(f"{store.url}: a backfill goes to the newest generation, {newest}; give its run")
        job = read_job(store)
        if job is None or job.finished or job.generation != manifest.newest:
            job = _plan(gallery, manifest.newest, budget, order, batch_size, keep_old, seed)
        dim, started, before = manifest.generations[-1].dim, time.perf_counter(), job.seconds
        with bar(f"backfill {store.url}", job.items, done=job.done * job.batch_size, log=True) as advance:
            left = range(job.done, job.batches)
            batches: list[list[str]] = [json.loads(_document(store, CHUNK.format(number))) for number in left]
            stream: Iterable[Embedded] = getattr(embed, "stream", partial(map, embed))(batches)
            for number, ids, made in zip(left, batches, stream, strict=True):
                rows = unit_rows(made.vectors, dim, "new vectors") if made.ids else np.empty((0, dim), np.float32)
                if len(rows) != len(made.ids):
                    raise GalleryError(f"expected {len(made.ids)} vectors for as many items, found {len(rows)}")
                if len(set(made.ids)) != len(made.ids) or not set(made.ids) <= set(ids):
                    raise GalleryError("the embedder returned an item twice, or one it was not asked for")
                patiently(still_ours, store.url)
                if made.ids:
                    items = Items(made.ids, manifest.newest, rows, [])
                    patiently(partial(store.replace, items, keep_old=job.keep_old), store.url)
                job = job.model_copy(
                    update={
                        "done": number + 1,
                        "exchanged": job.exchanged + len(made.ids),
                        "missing": {**job.missing, **made.missing},
                        "seconds": round(before + time.perf_counter() - started, 3),
                    }
                )
                patiently(partial(write_job, store, job), store.url)
                for _ in ids:
                    advance(f"{len(job.missing)} missing" if job.missing else "")
        for number in range(job.batches):
            store.write(CHUNK.format(number), None)
        if not job.keep_old:
            store.compact()
    return job


def read_job(store: Store) -> Job | None:
    """The journal, if there is one; raises `GalleryError` if it is damaged."""
    data = store.read(JOB)
    if data is None:
        return None
    try:
        return Job.model_validate_json(data)
    except ValidationError as error:
        raise GalleryError(f"{store.url}: damaged journal: {error.errors()[0]['msg'].lower()}") from error


def write_job(store: Store, job: Job) -> None:
    """Replace the journal."""
    store.write(JOB, job.model_dump_json(indent=1).encode())


def patiently(action: Callable[[], Value], where: str) -> Value:
    """Try again while the store does not answer, with longer and longer pauses."""
    for attempt in range(TRIES):
        try:
            return action()
        except UnreachableError as error:
            if attempt == TRIES - 1:
                raise GalleryError(
                    f"{where}: does not answer ({error}); the position is kept, the same command goes on from there"
                ) from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("unreachable")


def _plan(
    gallery: Gallery,
    generation: int,
    budget: float | None,
    order: Order,
    batch_size: int,
    keep_old: bool,
    seed: int,
) -> Job:
    """Write down which items go in which batch; the journal last, so that half a plan counts for nothing."""
    store = gallery.store
    held = {number: store.ids(number) for number in store.counts() if number < generation}
    total = sum(store.counts().values())
    ids = ORDERS[order](gallery, held, seed)
    if budget is not None:
        if budget <= 0 or (isinstance(budget, float) and budget > 1):
            raise GalleryError(
                f"--budget {budget}: expected a share of the gallery, above 0 up to 1, or a number of items"
            )
        ids = ids[: round(budget * total) if isinstance(budget, float) else budget]
    batches = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    for number, batch in enumerate(batches):
        store.write(CHUNK.format(number), json.dumps(batch).encode())
    left = read_job(store)
    for number in range(len(batches), left.batches if left else 0):  # of a job that was killed while it cleaned up
        store.write(CHUNK.format(number), None)
    job = Job(
        generation=generation,
        order=order,
        seed=seed,
        keep_old=keep_old,
        batch_size=batch_size,
        batches=len(batches),
        items=len(ids),
    )
    write_job(store, job)
    return job


def _document(store: Store, name: str) -> bytes:
    data = patiently(partial(store.read, name), store.url)
    if data is None:
        raise GalleryError(f"{store.url}: damaged: the plan {name!r} is missing")
    return data


Held = dict[int, list[str]]


def _oldest(gallery: Gallery, held: Held, seed: int) -> list[str]:  # noqa: ARG001
    return [name for number in sorted(held) for name in held[number]]


def _random(gallery: Gallery, held: Held, seed: int) -> list[str]:
    ids = _oldest(gallery, held, seed)
    return [ids[place] for place in np.random.default_rng(seed).permutation(len(ids))]


def _queried(gallery: Gallery, held: Held, seed: int) -> list[str]:
    hits: dict[str, int] = json.loads(gallery.store.read(HITS) or b"{}")
    if not hits:
        raise GalleryError(
            f"{gallery.store.url}: no searches are on record; search with --remember, or use another --order"
        )
    return sorted(_random(gallery, held, seed), key=lambda name: -hits.get(name, 0))


def _hardest(gallery: Gallery, held: Held, seed: int) -> list[str]:
    """Alone in the old space: the old model saw nothing like it, or put it anywhere."""
    nearest: dict[str, float] = {}
    for number, ids in held.items():
        chosen = np.random.default_rng(seed).permutation(len(ids))[:REFERENCES]
        known, references = vectors_of(gallery.store, [ids[place] for place in chosen], number)
        place_of = {name: place for place, name in enumerate(known)}
        for start in range(0, len(ids), 4096):
            some, vectors = vectors_of(gallery.store, ids[start : start + 4096], number)
            scores = vectors @ references.T
            for row, name in enumerate(some):
                if name in place_of:
                    scores[row, place_of[name]] = -np.inf
            nearest.update(zip(some, scores.max(axis=1, initial=-np.inf).tolist(), strict=True))
    return sorted(nearest, key=lambda name: nearest[name])


ORDERS: dict[Order, Callable[[Gallery, Held, int], list[str]]] = {
    "random": _random,
    "oldest": _oldest,
    "hardest": _hardest,
    "crowded": lambda gallery, held, seed: _hardest(gallery, held, seed)[::-1],
    "queried": _queried,
}
