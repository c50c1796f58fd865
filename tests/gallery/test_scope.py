"""Backfills of galleries that are held to some items: whose they are, and who sees what of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import FIRST, IDS, NEW, NEW_VECTORS, OLD_VECTORS, SECOND, embed

from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, Store, open_store
from nobackfill.gallery.scope import same_scope


class StopError(Exception): ...


def stop(*_: object) -> None:
    raise StopError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    yield store
    store.close()


def halves(store: Store, one: object, other: object) -> tuple[Gallery, Gallery]:
    """An upgraded gallery, as each of two owners sees their half."""
    payloads: list[dict[str, Any]] = [{"of": (one, other)[place % 2]} for place in range(len(IDS))]
    Gallery.create(store, FIRST, [(IDS, OLD_VECTORS, payloads)]).add_generation(SECOND, NEW_VECTORS)
    return Gallery.open(store, scope={"of": one}), Gallery.open(store, scope={"of": other})


def test_scopes_are_the_same_as_filters_see_it() -> None:
    assert same_scope({"a": 1, "b": None}, {"b": None, "a": 1.0})
    for other in ({}, {"a": True}, {"a": "1"}, {"b": 1}, {"a": 1, "b": None}):
        assert not same_scope({"a": 1}, other)
        assert not same_scope(other, {"a": 1})


@pytest.mark.parametrize(("one", "other"), [("a", "b"), (True, 1)])
def test_a_backfill_belongs_to_its_scope(folder: Store, one: object, other: object) -> None:
    mine, foreign = halves(folder, one, other)
    with pytest.raises(StopError):
        mine.backfill(embed, fingerprint=SECOND.fingerprint, batch_size=10, on_batch=stop)
    with pytest.raises(GalleryError, match="an unfinished backfill is held to .*; finish it with that scope"):
        foreign.backfill(embed, fingerprint=SECOND.fingerprint)
    with pytest.raises(GalleryError, match="the unfinished backfill is held to .*; give it up without a scope"):
        foreign.drop_job()
    assert mine.backfill(embed, fingerprint=SECOND.fingerprint).replaced == len(IDS) // 2
    assert (mine.status().items, foreign.status().items) == ((0, 30), (30, 0))
    assert foreign.drop_job() is None
    assert mine.status().job is not None
    with pytest.raises(StopError):
        foreign.backfill(embed, fingerprint=SECOND.fingerprint, batch_size=10, on_batch=stop)
    assert Gallery.open(folder).drop_job() is not None


def test_errors_of_other_items_are_not_shown(folder: Store) -> None:
    mine, foreign = halves(folder, "a", "b")
    everything = Gallery.open(folder)

    def fails(ids: list[str]) -> Embedded:
        return Embedded([], np.empty((0, NEW)), dict.fromkeys(ids, "/srv/secret: does not decode"))

    for gallery, errors in ((mine, (30, 0, 30)), (everything, (30, 30, 60))):
        gallery.backfill(fails, fingerprint=SECOND.fingerprint)
        jobs = [each.status().job for each in (mine, foreign, everything)]
        assert tuple(len(job.errors) for job in jobs if job) == errors
    assert mine.status().job != foreign.status().job
