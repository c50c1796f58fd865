"""`nobackfill gallery set-payloads`."""

from __future__ import annotations

from nobackfill.cli.gallery.options import (
    JsonOption,
    PayloadsOption,
    ScopeOption,
    StoreArgument,
    counted,
    read_payloads,
    read_scope,
    show,
)
from nobackfill.errors import ConfigError


def set_payloads(
    store: StoreArgument, payloads: PayloadsOption = None, scope: ScopeOption = None, json_: JsonOption = False
) -> None:
    """Replace the payloads of items; their vectors stay.

    Example: `nobackfill gallery set-payloads faiss:photos --payloads changed.jsonl`
    """
    from nobackfill.gallery import Gallery

    if payloads is None:
        raise ConfigError("give --payloads, a file of JSON lines")
    gallery, wanted = Gallery.open(store, scope=read_scope(scope)), read_payloads(payloads)
    done = gallery.set_payloads(wanted)
    text = f"{gallery.store.url}: {counted(done, 'payload')} replaced, {len(wanted) - done} not there"
    show(json_, {"replaced": done, "missing": len(wanted) - done}, text)
