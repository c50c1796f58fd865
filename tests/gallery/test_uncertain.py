"""Uncertainties in a gallery, and the order of a backfill by them."""

from __future__ import annotations

import numpy as np
import pytest
from tests.gallery.galleries import IDS, upgraded

from nobackfill.errors import GalleryError
from nobackfill.gallery import uncertainties
from nobackfill.gallery.orders import ORDERS
from nobackfill.gallery.stores.base import Store


def test_least_sure_items_come_first_and_unknown_ones_last(store: Store) -> None:
    upgraded(store)
    newest = 2
    with pytest.raises(
        GalleryError, match="no uncertainties are recorded for its old items; record them with `nobackfi"
    ):
        ORDERS["uncertain"](store, newest, 0, None)
    values = np.random.default_rng(0).random(len(IDS)).astype(np.float32)
    assert uncertainties.record(store, [(IDS[:30], values[:30]), (IDS[30:-5], values[30:-5])]) == len(IDS) - 5
    order = list(ORDERS["uncertain"](store, newest, 0, None))
    known = [IDS[place] for place in np.argsort(-values[:-5], kind="stable")]
    assert order[: len(known)] == known
    assert sorted(order[len(known) :]) == sorted(IDS[-5:])
    assert order[-5:] == [name for name in ORDERS["random"](store, newest, 0, None) if name in IDS[-5:]]


def test_a_new_record_takes_the_place_of_a_longer_old_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertainties, "SIZE", 4)
    upgraded(store)
    uncertainties.record(store, [(IDS[:11], np.arange(11.0))])
    assert uncertainties.read(store) == {name: float(place) for place, name in enumerate(IDS[:11])}
    assert uncertainties.record(store, [(IDS[:3], np.ones(3)), (IDS[3:5], np.zeros(2))]) == 5
    assert uncertainties.read(store) == dict(zip(IDS[:5], [1.0, 1.0, 1.0, 0.0, 0.0], strict=True))


@pytest.mark.parametrize("values", [[1.0, np.nan], [1.0], [[1.0, 2.0]]])
def test_what_is_no_number_an_item_is_refused_and_leaves_the_record(store: Store, values: list[float]) -> None:
    upgraded(store)
    uncertainties.record(store, [(IDS[:2], [0.5, 0.25])])
    with pytest.raises(GalleryError, match="uncertainties: expected one finite number for each of the 2 ids"):
        uncertainties.record(store, [(IDS[:2], values)])
    assert uncertainties.read(store) == {IDS[0]: 0.5, IDS[1]: 0.25}
