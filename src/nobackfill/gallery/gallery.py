"""A gallery: stored vectors of several generations, answered by queries of any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from numpy.typing import ArrayLike

from nobackfill.evaluation.rule_choice import RuleChoice
from nobackfill.gallery.adopting import compatible_part, plan_adoption
from nobackfill.gallery.backfill import run_backfill
from nobackfill.gallery.embedders.base import Embedder
from nobackfill.gallery.embedders.functions import Function, as_embedder
from nobackfill.gallery.expected import Rule
from nobackfill.gallery.items import GalleryItems
from nobackfill.gallery.job import Job
from nobackfill.gallery.lineage import ExpectedCurve, Generation, load_manifest
from nobackfill.gallery.orders import Order
from nobackfill.gallery.pair_rules import PairRule
from nobackfill.gallery.planning import Plan, Target, Wanted
from nobackfill.gallery.renewing import renew_rules
from nobackfill.gallery.stores.adopted_layout import Layout
from nobackfill.gallery.stores.base import Store
from nobackfill.gallery.stores.registry import open_store
from nobackfill.gallery.undoing import drop_job, roll_back, switch_over
from nobackfill.gallery.upgrading import add_generation, upgrade_store
from nobackfill.gallery.vectors import unit_rows
from nobackfill.gallery.verifying import verify_store
from nobackfill.gallery.worker import OnBatch
from nobackfill.gallery.writing import Batch, create_items


class Gallery(GalleryItems):
    """Opened by `Gallery.open`, made by `Gallery.create`. Several threads and processes may use one at a time."""

    @classmethod
    def open(cls, store: Store | str, *, scope: Mapping[str, object] | None = None) -> Gallery:
        """The gallery in a store, or behind its URL.

        Args:
            store: as above.
            scope: such as `{"tenant": "a"}`: every verb sees and changes only items with these payload values.

        Raises:
            GalleryError: if there is none.
        """
        store = open_store(store) if isinstance(store, str) else store
        return cls(store, load_manifest(store), scope)

    @classmethod
    def create(
        cls,
        store: Store | str,
        generation: Generation,
        batches: Iterable[Batch] = (),
        source: str | None = None,
        *,
        replace: bool = False,
    ) -> Gallery:
        """Make a gallery; without items it is empty, to be filled by `upsert`.

        What an interrupted creation left is removed first; if items are refused, nothing stays.

        Args:
            store: where to put it, or its URL.
            generation: the model of all vectors.
            batches: the items, some at a time.
            source: where the items came from, for later backfills.
            replace: remove a gallery that is there; refused while a backfill of it is running.

        Raises:
            GalleryError: if there is something in the store, an id comes twice, or a vector or payload is not usable.
        """
        store = open_store(store) if isinstance(store, str) else store
        return cls(store, create_items(store, generation, batches, source, replace=replace))

    @classmethod
    def adopt(
        cls,
        url: str,
        name: str,
        *,
        vector_column: str | None = None,
        id_column: str = "id",
        fingerprint: str | None = None,
        layout: Layout = "new-column",
        payload_columns: tuple[str, ...] | None = None,
    ) -> Gallery:
        """Make a gallery of a table or collection in use; `adopting.plan_adoption` says first what that changes."""
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
        rule: Rule = "auto",
        unchecked: bool = False,
        seed: int = 0,
    ) -> Generation:
        """Add a generation: its queries work from now on; no vector is touched.

        A sample of the items is embedded to choose how old and new scores are compared and to measure what backfilling
        is worth: by the items' labels, or without them by agreement with the new model.

        Args:
            generation: the new model, compatible with every generation whose vectors are stored.
            embed: item ids to its vectors.
            sample: how many items are embedded.
            rule: how old and new scores are compared, see `evaluation.scoring_rules`; `auto` chooses on the sample.
            unchecked: add it even if its vectors have nothing to do with the stored ones of the same items.
            seed: of the sample.

        Returns:
            The generation with what was measured of it.

        Raises:
            GalleryError: if it is in the lineage already, or not compatible with a generation in use, none of the
                sampled items could be embedded, or their new vectors find their old ones no better than by chance.
        """
        self._whole("upgrade")
        self.manifest = upgrade_store(
            self.store,
            generation,
            as_embedder(embed, generation.fingerprint),
            sample=sample,
            rule=rule,
            unchecked=unchecked,
            seed=seed,
        )
        return self.manifest.generations[-1]

    def add_generation(
        self,
        generation: Generation,
        sample: ArrayLike,
        curve: ExpectedCurve | None = None,
        rules: Mapping[int, RuleChoice] | None = None,
    ) -> Generation:
        """`upgrade` for who has measured already.

        Args:
            generation: the new model.
            sample: some of its vectors, floats [n, dim] with n ≥ 1, from which γ is measured.
            curve: what backfilling to it is worth, if known.
            rules: number of an older generation → how its scores are compared with those of new items; default: as
                they are.

        Raises:
            GalleryError: as `upgrade`.
        """
        self._whole("upgrade")
        rows = compatible_part(self.store, unit_rows(sample, generation.dim, f"sample of {generation.name}"))
        self.manifest = add_generation(self.store, generation, rows, curve, rules or {})
        return self.manifest.generations[-1]

    def renew_rules(
        self, embed: Embedder | Function, *, sample: int = 2000, rule: Rule = "auto", seed: int = 0
    ) -> tuple[PairRule, ...]:
        """Choose anew how scores of the newest generation's queries are compared, on items that are still old.

        Worth it where the items have changed since the upgrade, or a backfill in another order than `random` has left
        items that are unlike the rest.

        Args:
            embed: item ids to vectors of the newest model.
            sample: how many old items are embedded.
            rule: as in `upgrade`.
            seed: of the sample.

        Returns:
            The rules that were renewed: none if no old item is left, or could be embedded.
        """
        self._whole("renew_rules")
        embedder = as_embedder(embed, load_manifest(self.store).generations[-1].fingerprint)
        renewed = renew_rules(self.store, embedder, sample=sample, rule=rule, seed=seed)
        self.manifest = load_manifest(self.store)
        return renewed

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
        """Replace old vectors by those of the newest generation; continues an unfinished job, as it was planned.

        Several processes may do this at once: each takes pieces of the plan that no other has. An item that is removed
        meanwhile is counted, one that is changed is embedded again. With `target="all"` items that come meanwhile are
        taken too.

        Args:
            embed: item ids to vectors of the newest model.
            fingerprint: of that model; an embedder knows it, a function does not.
            target: how much of the gallery is to have new vectors in the end: `"all"`, a share such as `"25%"`, or a
                number of items. What has them already counts, so the same target twice does nothing more.
            order: `random`; `oldest` items of the gallery first; `isolated`: those farthest from their nearest
                neighbour in the old space first; `dense`: those nearest to it first; `popular`: those returned most
                often by searches that remember.
            batch_size: items replaced at one moment.
            keep_old: keep the old vectors, for a rollback, until `compact`. Those kept before stay in any case.
            seed: of the random order.
            max_rate: items a second at most, of this process.
            announce: called with the plan before anything is replaced.
            on_batch: called after each batch with the number of its piece and how far that is.

        Returns:
            The journal as it is at the end.

        Raises:
            GalleryError: if the model is not the newest generation, another command changes the gallery, or the store
                does not answer for a quarter of a minute (the position is kept).
        """
        job = run_backfill(
            self.store,
            as_embedder(embed, fingerprint),
            Wanted(target, order, batch_size, keep_old=keep_old, seed=seed, scope=self.scope),
            max_rate=max_rate,
            announce=announce,
            on_batch=on_batch,
        )
        self.manifest = load_manifest(self.store)
        return job

    def drop_job(self) -> Job | None:
        """Give up an unfinished backfill: what has new vectors keeps them, the plan is removed.

        Returns:
            The job, or None if there was none to give up.

        Raises:
            GalleryError: if a process is at work on it, or this gallery is held to items and the job to others.
        """
        return drop_job(self.store, self.scope)

    def rollback(self, name: str, *, forget: bool = False, leave_new: bool = False) -> None:
        """Put back the vectors of an older generation, as far as they were kept.

        Newer generations stay in the lineage: their queries go on, as before a backfill, and a backfill can follow.

        Args:
            name: of the generation.
            forget: newer generations leave the lineage; their queries are refused from then on.
            leave_new: items without a kept vector (they came later) keep their newer one, instead of a refusal; not
                together with `forget`.

        Raises:
            GalleryError: if there is no such generation, vectors were not kept, or a backfill is running. Nothing has
                changed then, and an unfinished backfill can go on.
        """
        self._whole("rollback")
        self.manifest = roll_back(self.store, name, forget=forget, leave_new=leave_new)

    def switch(self, *, leave_old: bool = False) -> None:
        """Serve the newest generation only: older queries are refused, older items are not found; `rollback` undoes it.

        Args:
            leave_old: do so though some items are still old; a backfill brings them back.

        Raises:
            GalleryError: if some items are still old.
        """
        self._whole("switch")
        self.manifest = switch_over(self.store, leave_old=leave_old)

    def compact(self) -> None:
        """Give back the space of superseded vectors, kept ones too, and rebuild indexes; ends every rollback."""
        self._whole("compact")
        with self.store.lock():
            self.store.compact(forget_kept=True)

    def verify(self) -> list[str]:
        """What is wrong, a line each: generations, sizes, norms, ids that come twice, counts.

        Raises:
            GalleryError: if items are replaced meanwhile: what the scan then sees is of no one moment.
        """
        self._whole("verify")
        return verify_store(self.store)
