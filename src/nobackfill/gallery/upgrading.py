"""Adding a generation: measured on a sample of the items, then written down."""

from __future__ import annotations

from collections.abc import Mapping

from nobackfill.errors import GalleryError
from nobackfill.evaluation.neighbours import unrelated
from nobackfill.evaluation.rule_choice import RuleChoice
from nobackfill.gallery.adopting import compatible_part
from nobackfill.gallery.embedders.base import Embedder
from nobackfill.gallery.expected import PairedSample, Rule, choose_rules, expected_curve, paired_samples
from nobackfill.gallery.job import stop_job
from nobackfill.gallery.lineage import ExpectedCurve, Generation, Manifest, load_manifest, save_manifest
from nobackfill.gallery.pair_rules import save_rule
from nobackfill.gallery.stores.base import Floats, Store

FEWEST = 20  # items on which vectors can be told from unrelated ones


def upgrade_store(
    store: Store, generation: Generation, embedder: Embedder, *, sample: int, rule: Rule, unchecked: bool, seed: int
) -> Manifest:
    """See `Gallery.upgrade`; returns the new manifest."""
    manifest = load_manifest(store)
    manifest.compatible_generations(generation, store.counts(), store.url)  # before anything is embedded
    ids = store.sample(sample, seed)
    if not ids:
        raise GalleryError(f"{store.url}: is empty; create it with {generation.name}, or add items first")
    embedded, rows = next(embedder.embed([ids])).checked(ids, generation.dim)
    rows = compatible_part(store, rows)
    if not len(rows):
        reason = "".join(f" ({name}: {error})" for name, error in list(embedded.errors.items())[:1])
        raise GalleryError(
            f"{store.url}: none of {len(ids)} sampled items could be embedded by {generation.name}{reason}; "
            "they are needed to measure the scale between old and new scores"
        )
    samples = paired_samples(store, manifest, generation, embedded, rows)
    if not unchecked:
        _check_related(samples, manifest, generation, store.url)
    choices = choose_rules(samples, rule, seed)
    return add_generation(store, generation, rows, expected_curve(samples, choices), choices)


def add_generation(
    store: Store,
    generation: Generation,
    rows: Floats,
    curve: ExpectedCurve | None,
    rules: Mapping[int, RuleChoice],
) -> Manifest:
    """See `Gallery.add_generation`; `rows` are unit vectors of the new model, as the store takes them."""
    if not len(rows):
        raise GalleryError(f"sample of {generation.name}: it has no vectors, so the scale cannot be measured")
    with store.lock():
        manifest = load_manifest(store)
        extended = manifest.extended(generation.model_copy(update={"curve": curve}), rows, store.counts(), store.url)
        stop_job(store)  # it went to a generation that is the newest no more
        store.add_generation(extended.newest, generation.dim)
        added = [save_rule(store, extended.newest, stored, one) for stored, one in rules.items()]
        return save_manifest(store, extended.with_rules(added))


def _check_related(samples: list[PairedSample], manifest: Manifest, generation: Generation, url: str) -> None:
    """Refuse new vectors that have nothing to do with the stored ones of the same items."""
    for one in samples:
        reason = unrelated(one.new, one.old) if len(one.old) >= FEWEST else None
        if reason is not None:
            older = manifest.generations[one.generation - 1].name
            raise GalleryError(
                f"{url}: vectors of {generation.name} do not fit those of {older}: the new vector, as a query, {reason}"
                "; check that ids and vectors belong together, or add it --unchecked"
            )
