"""What a backfill of the FAISS folder writes does not grow with the gallery (FINDINGS D19)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.gallery.galleries import vectors

from nobackfill.gallery import ItemBatch, open_store

IO = Path("/proc/self/io")
DIM, BATCH = 128, 256


def written() -> int:
    return int(IO.read_text().split("wchar: ")[1].split()[0])


@pytest.mark.skipif(not IO.exists(), reason="the system does not count what a process writes")
@pytest.mark.parametrize("count", [2_000, 20_000])
def test_a_replaced_item_costs_one_page_twice(count: int, tmp_path: Path) -> None:
    store, rows = open_store(f"faiss:{tmp_path / 'store'}"), vectors(DIM, 0, count)
    store.create()
    for number in (1, 2):
        store.add_generation(number, DIM)
    names = [f"item-{number}" for number in range(count)]
    store.insert(ItemBatch(names, 1, rows, [{}] * count))
    order, before = np.random.default_rng(0).permutation(count)[: 7 * BATCH], written()
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        items = ItemBatch([names[place] for place in some.tolist()], 2, rows[some], [])
        assert store.replace(items, keep_old=False) == []
    assert (written() - before) / len(order) < 9_000  # 4,096 to the log, 4,096 to the file; the vector itself has 512
    assert store.counts() == {1: count - len(order), 2: len(order)}
    store.close()
