"""`nobackfill gallery upsert`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nobackfill.cli.gallery.options import (
    DataOption,
    IdsOption,
    JsonOption,
    NameOption,
    PayloadsOption,
    RunOption,
    ScopeOption,
    StoreArgument,
    VectorsOption,
    counted,
    read_payloads,
    read_scope,
    require_model,
    require_source,
    say,
    show,
)
from nobackfill.cli.source import SplitOption, WorkersOption

if TYPE_CHECKING:
    from nobackfill.gallery.scope import Scope
    from nobackfill.gallery.stores.base import Payload


def upsert(
    store: StoreArgument,
    run: RunOption = None,
    name: NameOption = None,
    data: DataOption = None,
    split: SplitOption = "test",
    vectors: VectorsOption = None,
    ids: IdsOption = None,
    payloads: PayloadsOption = None,
    scope: ScopeOption = None,
    workers: WorkersOption = None,
    json_: JsonOption = False,
) -> None:
    """Add items, or replace them whole, with vectors of any model of the lineage; older ones join the next backfill.

    Example: `nobackfill gallery upsert faiss:photos --name api-v2 --vectors more.npy --ids more.txt`
    """
    from nobackfill.cli.gallery.items import array_batches, embedded_batches, load_encoder, open_items, read_vectors
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery, Generation
    from nobackfill.gallery.writing import check_ids, checked_payloads

    require_model(run, name)
    require_source(data, vectors, ids)
    gallery = Gallery.open(store, scope=read_scope(scope))
    encoder = load_encoder(run)
    fingerprint = encoder.spec.fingerprint if encoder else Generation.named(name or "", 1).fingerprint
    known = checked_payloads(read_payloads(payloads)) if payloads else {}
    if vectors is not None:
        names, array = read_vectors(vectors, ids)
        _check_scope(gallery.scope, names, known)
        batches = array_batches(vectors, names, array, encoder)
    elif encoder is not None and data is not None:
        items = open_items(data, split, workers, encoder)
        check_ids(items.ids)
        _check_scope(gallery.scope, items.ids, known)
        batches = embedded_batches(encoder, items)
    else:
        raise ConfigError("give --run and --data, or --vectors")
    done = 0
    for names, rows, some in batches:
        both = [{**payload, **known.pop(each, {})} for each, payload in zip(names, some, strict=True)]
        gallery.upsert(names, rows, both, fingerprint=fingerprint)
        done += len(names)
    if known:
        say(
            f"--payloads: of {counted(len(known), 'id')} there is no item, such as {next(iter(known))!r}: ignored",
            err=True,
        )
    show(json_, {"upserted": done, "total": gallery.count()}, f"{gallery.store.url}: {counted(done, 'item')} upserted")


def _check_scope(scope: Scope, ids: Sequence[str], payloads: Mapping[str, Payload]) -> None:
    """Raise `GalleryError` for a payload of another scope before anything is written."""
    from nobackfill.gallery.scope import stamped

    for each in ids:
        if each in payloads:
            stamped(scope, each, payloads[each])
