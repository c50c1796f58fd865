"""Choosing a gallery's scoring rules again, on the items that are still old."""

from __future__ import annotations

import numpy as np

from nobackfill.gallery.adopting import compatible_part
from nobackfill.gallery.embedders.base import Embedder
from nobackfill.gallery.expected import Rule, choose_rules, paired_samples
from nobackfill.gallery.lineage import load_manifest, save_manifest
from nobackfill.gallery.pair_rules import PairRule, forget_documents, save_rule
from nobackfill.gallery.stores.base import Store

WIDER = 20  # times the sample, so many items are looked at to find old ones


def renew_rules(store: Store, embedder: Embedder, *, sample: int, rule: Rule, seed: int) -> tuple[PairRule, ...]:
    """See `Gallery.renew_rules`."""
    manifest = load_manifest(store)
    newest = manifest.generations[-1]
    ids = _old_items(store, manifest.newest, sample, seed)
    embedded = next(embedder.embed([ids])) if ids else None
    if embedded is None:
        return ()
    embedded, rows = embedded.checked(ids, newest.dim)
    if not embedded.ids:
        return ()
    rows = compatible_part(store, rows)
    samples = paired_samples(store, manifest, newest, embedded, rows)
    samples = [one for one in samples if one.generation < manifest.newest]  # backfilled since they were drawn
    choices = choose_rules(samples, rule, seed)
    with store.lock():
        present = load_manifest(store)
        if present.newest != manifest.newest:
            return ()  # rolled back or upgraded meanwhile: the rules are of another lineage
        added = tuple(save_rule(store, present.newest, stored, choice) for stored, choice in choices.items())
        forget_documents(store, present.rules, save_manifest(store, present.with_rules(added)).rules)
    return added


def _old_items(store: Store, newest: int, sample: int, seed: int) -> list[str]:
    """Random items that are not of the newest generation, `sample` at most."""
    counts = store.counts()
    total, old = sum(counts.values()), sum(items for number, items in counts.items() if number < newest)
    if not old:
        return []
    drawn = store.sample(min(total, WIDER * sample, -(-2 * sample * total // old)), seed)
    still = {name for items in store.fetch(drawn) if items.generation < newest for name in items.ids}
    found = [name for name in drawn if name in still]
    chosen = np.random.default_rng(seed).permutation(len(found))[:sample]  # `found` has the oldest items first
    return [found[place] for place in np.sort(chosen)]
