"""Going back, and going over for good: rollback, switch, and giving up a job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nobackfill.errors import GalleryError
from nobackfill.gallery.job import JOB, Job, read_job, remove_pieces, stop_job, write_job
from nobackfill.gallery.lineage import MANIFEST, Manifest, load_manifest, save_manifest
from nobackfill.gallery.pair_rules import forget_documents
from nobackfill.gallery.scope import Scope, same_scope
from nobackfill.gallery.stores.adopted_items import AdoptedItems
from nobackfill.gallery.stores.base import Store


def roll_back(store: Store, name: str, *, forget: bool, leave_new: bool) -> Manifest:
    """See `Gallery.rollback`."""
    if forget and leave_new:
        raise GalleryError(
            f"{store.url}: rollback: expected forget (--forget) or leave_new (--leave-new), found both: vectors that "
            "stay would be of a model that is forgotten"
        )
    with store.lock():
        manifest = load_manifest(store)
        names = [generation.name for generation in manifest.generations]
        if name not in names:
            raise GalleryError(f"{store.url}: no generation {name!r}; there are {', '.join(names)}")
        number = names.index(name) + 1
        older = [each for each in range(1, number) if manifest.comparable(number, each)]
        wider = manifest.model_copy(update={"serves_from": min(manifest.serves_from, number, *older)})
        with unless_refused(store, JOB, MANIFEST):
            stop_job(store)  # first: killed after the restore, a later backfill must not count its batches
            save_manifest(store, wider)  # first, too: after a switch, items that are back already would not be found
            missing = store.restore(number, leave_new=True) if leave_new else store.restore(number)
            if missing and not leave_new:
                leave = "" if forget else ", or leave them as they are (--leave-new)"
                raise GalleryError(
                    f"{store.url}: items without a kept vector of {name} or older: {missing} (they came later, or old "
                    f"vectors were discarded); remove or upsert them{leave}"
                )
        _remove_job(store)
        counts = store.counts()  # while newer models stay, those that have no items are not served for their sake
        served = (each for each in older if forget or counts.get(each))
        update: dict[str, object] = {"serves_from": min(manifest.serves_from, number, *served)}
        if forget:
            rules = tuple(rule for rule in manifest.rules if rule.query <= number)
            update |= {"generations": manifest.generations[:number], "rules": rules}
        elif isinstance(store, AdoptedItems):
            # Some take the room of later vectors away and make it anew; of one that was killed between, it is missing.
            for later, generation in enumerate(manifest.generations[number:], start=number + 1):
                store.add_generation(later, generation.dim)
        saved = save_manifest(store, manifest.model_copy(update=update))
        if forget and any(later > number for later in store.counts()) and store.restore(number):
            save_manifest(store, wider)
            raise GalleryError(
                f"{store.url}: items of {manifest.generations[-1].name} were added meanwhile; repeat this"
            )
        forget_documents(store, manifest.rules, saved.rules)
        return saved


def switch_over(store: Store, *, leave_old: bool) -> Manifest:
    """See `Gallery.switch`."""
    with store.lock():
        manifest = load_manifest(store)
        counts = store.counts()
        old = sum(count for number, count in counts.items() if number < manifest.newest)
        if old and not leave_old:
            noun = "item is" if old == 1 else "items are"
            raise GalleryError(
                f"{store.url}: {old} {noun} not embedded by {manifest.generations[-1].name} yet and would no longer be "
                "found; backfill first, or give --leave-old"
            )
        return save_manifest(store, manifest.model_copy(update={"serves_from": manifest.newest}))


def drop_job(store: Store, scope: Scope) -> Job | None:
    """See `Gallery.drop_job`."""
    with store.lock():
        job = read_job(store)
        if scope and job is not None and not same_scope(job.scope, scope):
            if job.finished:
                return None  # nor is another's report removed
            raise GalleryError(
                f"{store.url}: the unfinished backfill is held to {job.scope or 'all items'}, not to {dict(scope)}; "
                "give it up without a scope"
            )
        stopped = stop_job(store)
        _remove_job(store)
        return stopped


@contextlib.contextmanager
def unless_refused(store: Store, *names: str) -> Iterator[None]:
    """Documents that are put back if what follows is refused before any item has changed; under the gallery's lock."""
    documents = {name: store.read(name) for name in names}
    before = _counts(store)
    try:
        yield
    except GalleryError:
        with contextlib.suppress(GalleryError):
            if before is not None and _counts(store) == before:
                for name, data in documents.items():
                    if store.read(name) != data:
                        store.write(name, data)
        raise


def _counts(store: Store) -> dict[int, int] | None:
    try:
        return store.counts()
    except GalleryError:  # of an adopted table whose column is gone; it can be abandoned all the same
        return None


def _remove_job(store: Store) -> None:
    job = read_job(store)
    if job is not None:
        write_job(store, job.model_copy(update={"stopped": True}))
        remove_pieces(store, job)
        store.write(JOB, None)
