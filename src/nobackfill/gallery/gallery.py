"""A gallery: stored vectors of several generations, answered by queries of any of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from numpy.typing import ArrayLike

from nobackfill.errors import GalleryError
from nobackfill.gallery.adopting import compatible_part, plan_adoption
from nobackfill.gallery.backfill import run_backfill
from nobackfill.gallery.embedders.base import Embedder
from nobackfill.gallery.embedders.functions import Function, as_embedder
from nobackfill.gallery.expected import expected_curve, helpful_calibration, labelled_samples
from nobackfill.gallery.job import JOB, Job, rewind_job
from nobackfill.gallery.lineage import ExpectedCurve, Generation, Manifest, load_manifest, save_manifest
from nobackfill.gallery.orders import Order
from nobackfill.gallery.searching import Calibration, Hit, search_store
from nobackfill.gallery.status import GalleryStatus, status_of
from nobackfill.gallery.stores.adopted_layout import Layout
from nobackfill.gallery.stores.base import ItemBatch, Payload, Store
from nobackfill.gallery.stores.registry import open_store
from nobackfill.gallery.vectors import unit_rows
from nobackfill.gallery.verifying import verify_store

Batch = tuple[Sequence[str], ArrayLike, Sequence[Payload]]
"""Ids, vectors floats [n, dim] of any norm but zero, payloads."""


class Gallery:
    """Opened by `Gallery.open`, made by `Gallery.create`.

    Attributes:
        store: where the vectors are.
        manifest: the lineage, as it was when it was last read or written here.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest

    @classmethod
    def open(cls, store: Store | str) -> Gallery:
        """The gallery in a store, or behind its URL; raises `GalleryError` if there is none."""
        store = open_store(store) if isinstance(store, str) else store
        return cls(store, load_manifest(store))

    @classmethod
    def create(
        cls, store: Store | str, generation: Generation, batches: Iterable[Batch], source: str | None = None
    ) -> Gallery:
        """Fill an empty store.

        Args:
            store: where to put it, or its URL.
            generation: the model of all vectors.
            batches: the items, some at a time.
            source: where the items came from, for later backfills.

        Raises:
            GalleryError: if there is something in the store, an id comes twice, or a vector is not usable.
        """
        store = open_store(store) if isinstance(store, str) else store
        store.create()
        with store.lock():
            store.add_generation(1, generation.dim)
            for ids, vectors, payloads in batches:
                rows = unit_rows(vectors, generation.dim, f"vectors of {generation.name}")
                if len(ids) != len(rows) or len(payloads) != len(rows):
                    raise GalleryError(
                        f"expected an id and a payload for each of {len(rows)} vectors, found {len(ids)} ids"
                    )
                for name in ids:
                    _check_id(name)
                store.insert(ItemBatch(list(ids), 1, rows, list(payloads)))
            store.compact(forget_kept=False)
            manifest = save_manifest(store, Manifest(generations=(generation,), source=source))
        return cls(store, manifest)

    @classmethod
    def adopt(
        cls,
        url: str,
        name: str,
        *,
        vector_column: str = "embedding",
        id_column: str = "id",
        fingerprint: str | None = None,
        layout: Layout = "new-column",
        payload_columns: tuple[str, ...] | None = None,
    ) -> Gallery:
        """Make a gallery of a table that is there; see `adopting.plan_adoption`, which says first what that changes."""
        plan = plan_adoption(
            url,
            name,
            vector_column=vector_column,
            id_column=id_column,
            fingerprint=fingerprint,
            layout=layout,
            payload_columns=payload_columns,
        )
        return cls.open(plan.carry_out())

    def upgrade(
        self,
        generation: Generation,
        embed: Embedder | Function,
        *,
        sample: int = 2000,
        calibrate: bool = False,
        seed: int = 0,
    ) -> Generation:
        """Add a generation: its queries work from now on; no vector is touched.

        A sample of the items is embedded to measure the scale between old and new scores and, where the items have
        labels, what backfilling is worth.

        Args:
            generation: the new model, compatible with every generation whose vectors are stored.
            embed: item ids to its vectors.
            sample: how many items are embedded.
            calibrate: bring old and new scores to one scale, if the sample shows that it helps.
            seed: of the sample.

        Returns:
            The generation with what was measured of it.

        Raises:
            GalleryError: if it is in the lineage already, or not compatible with a generation in use, or none of the
                sampled items could be embedded.
        """
        embedder = as_embedder(embed, generation.fingerprint)
        manifest = load_manifest(self.store)
        manifest.compatible_generations(generation, self.store.counts(), self.store.url)  # before anything is embedded
        ids = self.store.sample(sample, seed)
        embedded = next(embedder.embed([ids]))
        rows = compatible_part(self.store, embedded.rows(ids, generation.dim))
        if not len(rows):
            reason = "".join(f" ({name}: {error})" for name, error in list(embedded.errors.items())[:1])
            raise GalleryError(
                f"{self.store.url}: none of {len(ids)} sampled items could be embedded by {generation.name}{reason}; "
                "they are needed to measure the scale between old and new scores"
            )
        samples = labelled_samples(self.store, manifest, generation, embedded, rows)
        if calibrate and not samples:
            raise GalleryError(
                "calibrate: needs items with labels and old vectors that the new model is compatible with"
            )
        calibration = helpful_calibration(samples) if calibrate else {}
        return self.add_generation(generation, rows, expected_curve(samples), calibration)

    def add_generation(
        self,
        generation: Generation,
        sample: ArrayLike,
        curve: ExpectedCurve | None = None,
        calibration: Calibration | None = None,
    ) -> Generation:
        """`upgrade` for who has measured already.

        Args:
            generation: the new model.
            sample: some of its vectors, floats [n, dim] with n ≥ 1, from which γ is measured.
            curve: what backfilling to it is worth, if known.
            calibration: see `Manifest`; it takes the place of an earlier one.

        Raises:
            GalleryError: as `upgrade`.
        """
        rows = compatible_part(self.store, unit_rows(sample, generation.dim, f"sample of {generation.name}"))
        if not len(rows):
            raise GalleryError(f"sample of {generation.name}: it has no vectors, so the scale cannot be measured")
        with self.store.lock():
            manifest = load_manifest(self.store)
            extended = manifest.extended(
                generation.model_copy(update={"curve": curve}), rows, self.store.counts(), self.store.url
            )
            self.store.add_generation(extended.newest, generation.dim)
            update = {"calibration": dict(calibration or {})}
            self.manifest = save_manifest(self.store, extended.model_copy(update=update))
        return self.manifest.generations[-1]

    def backfill(
        self,
        embed: Embedder | Function,
        *,
        fingerprint: str | None = None,
        budget: float | None = None,
        order: Order = "random",
        batch_size: int = 256,
        keep_old: bool = False,
        seed: int = 0,
    ) -> Job:
        """Replace old vectors by those of the newest generation; continues an unfinished job, as it was planned.

        Args:
            embed: item ids to vectors of the newest model.
            fingerprint: of that model; an embedder knows it, a function does not.
            budget: how many items at most: a fraction of the gallery (0 < budget ≤ 1, not an int) or a number; None:
                all.
            order: `random`; `oldest` items of the gallery first; `isolated`: those farthest from their nearest
                neighbour in the old space first; `dense`: those nearest to it first; `popular`: those returned most
                often by searches that remember.
            batch_size: items replaced at one moment.
            keep_old: keep the old vectors, for a rollback. Vectors that were kept before stay in any case.
            seed: of the random order.

        Returns:
            The journal as it is at the end.

        Raises:
            GalleryError: if the model is not the newest generation, another process is at it, or the store does not
                answer for a quarter of a minute (the position is kept).
        """
        job = run_backfill(
            self.store,
            as_embedder(embed, fingerprint),
            budget=budget,
            order=order,
            batch_size=batch_size,
            keep_old=keep_old,
            seed=seed,
        )
        self.manifest = load_manifest(self.store)
        return job

    def search(self, queries: ArrayLike, k: int, fingerprint: str, *, remember: bool = False) -> list[list[Hit]]:
        """The best k items for each query, of whatever generation their vectors are.

        Args:
            queries: floats [n, dim] of the model with this fingerprint.
            k: results wanted.
            fingerprint: of the model that made the queries.
            remember: count the results, for `backfill(order="popular")`.

        Raises:
            GalleryError: for queries of an unknown model, misshapen or not finite.
        """
        return search_store(self.store, queries, k, fingerprint, remember=remember)

    def status(self) -> GalleryStatus:
        """Items by generation, a backfill's progress, the expected quality."""
        return status_of(self.store)

    def rollback(self, name: str) -> None:
        """Back to an older generation, whose vectors were kept; newer generations leave the lineage.

        Raises:
            GalleryError: if there is no such generation, or vectors of it were not kept.
        """
        with self.store.lock():
            manifest = load_manifest(self.store)
            names = [generation.name for generation in manifest.generations]
            if name not in names:
                raise GalleryError(f"{self.store.url}: no generation {name!r}; there are {', '.join(names)}")
            number = names.index(name) + 1
            rewind_job(self.store)  # first: killed after the restore, a later backfill must not count its batches
            missing = self.store.restore(number)
            if missing:
                raise GalleryError(
                    f"{self.store.url}: items without a kept vector of {name} or older: {missing}; "
                    "rollback needs a backfill with --keep-old"
                )
            self.store.write(JOB, None)
            update = {"generations": manifest.generations[:number], "calibration": {}}  # it was for newer queries
            self.manifest = save_manifest(self.store, manifest.model_copy(update=update))

    def compact(self) -> None:
        """Give back the space of superseded vectors, kept ones too, and rebuild indexes; ends every rollback."""
        with self.store.lock():
            self.store.compact(forget_kept=True)

    def verify(self) -> list[str]:
        """What is wrong, a line each: generations, sizes, norms, ids that come twice, counts.

        Raises:
            GalleryError: if items are replaced meanwhile: what the scan then sees is of no one moment.
        """
        return verify_store(self.store)


def _check_id(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise GalleryError(f"id {name!r}: not valid UTF-8, which stores require; rename the file") from None
