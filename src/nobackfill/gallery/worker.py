"""One process's work on a backfill: the batches of a piece, embedded and replaced."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from nobackfill.errors import GalleryError
from nobackfill.gallery.embedders.base import Embedded, Embedder
from nobackfill.gallery.job import Job, Progress, read_piece, read_progress, write_progress
from nobackfill.gallery.retries import with_retries
from nobackfill.gallery.stores.base import ItemBatch, Store

OnBatch = Callable[[int, Progress], None]
"""Called with the number of a piece and how far it is."""
ATTEMPTS = 5  # to embed an item that is changed while it is embedded
RECENT = 20  # batches from which the current rate is measured


@dataclass
class Pace:
    """How fast items go, and a limit on it.

    Attributes:
        limit: items a second at most; None: no limit.
    """

    limit: float | None = None
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def wait(self, items: int) -> None:
        """After so many more items: wait until they are due."""
        now = time.perf_counter()
        if not self._recent:
            self._recent.append((now, 0))
        if self.limit is not None:
            due = self._recent[-1][0] + items / self.limit
            time.sleep(max(0.0, due - now))
        self._recent.append((time.perf_counter(), items))

    def start(self) -> None:
        """Work begins: what was before does not count."""
        self._recent.clear()
        self._recent.append((time.perf_counter(), 0))

    @property
    def rate(self) -> float:
        """Items a second over the last batches; 0 before the first."""
        if len(self._recent) < 2:
            return 0.0
        span = self._recent[-1][0] - self._recent[0][0]
        return sum(items for _, items in list(self._recent)[1:]) / span if span else 0.0


@dataclass
class _Batch:
    """Items whose turn it is, and the version that each had when it was read; `ids` without one are gone."""

    ids: list[str]
    versions: dict[str, int]


@dataclass
class Worker:
    """Embeds and replaces.

    Attributes:
        store: of the gallery.
        job: its journal.
        embedder: of the newest generation, whose vectors have `dim` values.
        pace: of this process.
        advance: called for each item, with a few words.
        on_batch: called after each batch.
    """

    store: Store
    job: Job
    embedder: Embedder
    dim: int
    pace: Pace
    advance: Callable[[str], None]
    on_batch: OnBatch | None = None

    def run(self, number: int, still_ours: Callable[[], None]) -> None:
        """What is left of one piece, which this process has locked."""
        progress = read_progress(self.store, number)
        if progress.finished:
            return
        read: deque[_Batch] = deque()  # that the embedder has taken, and not answered yet
        self.pace.start()
        started, before = time.perf_counter(), progress.seconds

        def account(batch: _Batch, embedded: Embedded | None) -> Progress:
            with_retries(still_ours)
            after = self._replaced(progress, batch, embedded)
            self.pace.wait(len(batch.ids))
            seconds = round(before + time.perf_counter() - started, 3)
            now = {"seconds": seconds, "rate": round(self.pace.rate, 3), "at": round(time.time(), 3)}
            after = after.model_copy(update=now)
            write_progress(self.store, number, after)
            for _ in batch.ids:
                self.advance(f"{len(after.errors)} failed" if after.errors else "")
            if self.on_batch is not None:
                self.on_batch(number, after)
            return after

        for embedded in self.embedder.embed(self._batches(read_piece(self.store, number)[progress.done :], read)):
            while not read[0].versions:
                progress = account(read.popleft(), None)
            progress = account(read.popleft(), embedded)
        while read:
            if read[0].versions:
                raise GalleryError(f"the embedder ended after {progress.done} of {progress.items} items")
            progress = account(read.popleft(), None)
        if not progress.finished:
            raise GalleryError(f"the embedder ended after {progress.done} of {progress.items} items")

    def _batches(self, ids: list[str], read: deque[_Batch]) -> Iterator[list[str]]:
        """Batches for the embedder. An item's version is read before the embedder reads the item itself."""
        for start in range(0, len(ids), self.job.batch_size):
            some = ids[start : start + self.job.batch_size]
            versions = with_retries(partial(self.store.versions, some))
            read.append(_Batch(some, versions))
            known = [name for name in some if name in versions]
            if known:
                yield known

    def _replaced(self, progress: Progress, batch: _Batch, embedded: Embedded | None) -> Progress:
        """Replace the items of a batch; those that were changed meanwhile are embedded again."""
        replaced = already = 0
        missing = len(batch.ids) - len(batch.versions)
        errors, error_versions = dict(progress.errors), dict(progress.error_versions)
        versions = batch.versions
        for _ in range(ATTEMPTS):
            if not versions:
                break
            if embedded is None:
                embedded = next(self.embedder.embed([list(versions)]), None)
            made, reasons, left = self._exchanged(embedded, versions)
            replaced += made
            looked = [*left, *reasons]
            now = with_retries(partial(self.store.versions, looked)) if looked else {}
            missing += len(looked) - len(now)
            same = {name: version for name, version in now.items() if versions[name] == version}
            failed = {name: version for name, version in same.items() if name in reasons}
            errors.update({name: reasons[name] for name in failed})
            error_versions.update(failed)
            already += len(same) - len(failed)
            versions = {name: version for name, version in now.items() if name not in same}
            embedded = None
        errors.update(dict.fromkeys(versions, "was changed again and again while it was embedded"))
        error_versions.update(versions)
        update = {
            "done": progress.done + len(batch.ids),
            "replaced": progress.replaced + replaced,
            "already": progress.already + already,
            "missing": progress.missing + missing,
            "errors": errors,
            "error_versions": error_versions,
        }
        return progress.model_copy(update=update)

    def _exchanged(self, embedded: Embedded | None, versions: dict[str, int]) -> tuple[int, dict[str, str], list[str]]:
        """How many items were replaced, why others could not be embedded, and which the store left alone."""
        if embedded is None:
            raise GalleryError("the embedder ended before the last batch")
        embedded, rows = embedded.checked(list(versions), self.dim)
        ids, made = list(embedded.ids), set(embedded.ids)
        reasons = {
            name: str(embedded.errors.get(name, "the embedder gave no vector")) for name in versions if name not in made
        }
        if not ids:
            return 0, reasons, []
        items = ItemBatch(ids, self.job.generation, rows, [], [versions[name] for name in ids])
        left = with_retries(partial(self.store.replace, items, keep_old=self.job.keep_old))
        return len(ids) - len(left), reasons, left
