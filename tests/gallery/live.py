"""What a store must answer after any writes, kept in a dict; and random writes to try it with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nobackfill.gallery.filters import matches, parse_filter
from nobackfill.gallery.stores.base import ItemBatch, Store

DIMS = {1: 6, 2: 9, 3: 12}
NAMES = [f"i{number} '☃\"%_\\ \n" for number in range(40)]
FILTERS: list[dict[str, Any] | None] = [
    None,
    {"lang": "en"},
    {"n": {">=": 2, "<": 5}},
    {"n": 1},
    {"n": {"in": [0, 3, True, None]}},
    {"not": {"lang": "de"}},
    {"a 'key\" ☃%": True, "not": {"n": {">": 6}}},
    {"lang": {"in": ["en", "x'y"]}, "not": {"n": 4, "lang": "en"}},
    {"missing": None},
    {"maybe": None},
]


@dataclass
class Item:
    """One item as it must be; `kept` by generation."""

    generation: int
    vector: Any
    payload: dict[str, Any]
    version: int
    order: int
    kept: dict[int, Any] = field(default_factory=dict)


@dataclass
class Model:
    """All items, and the version each removed one had."""

    items: dict[str, Item] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    made: int = 0


def unit(rng: np.random.Generator, count: int, dim: int) -> Any:
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def payload(rng: np.random.Generator) -> dict[str, Any]:
    values: dict[str, Any] = {
        "lang": rng.choice(["en", "de", "x'y"]).item(),
        "n": [0, 1, 2, 3, 4.0, 5.5, 7, True, None, "1", [1]][rng.integers(11)],
        "a 'key\" ☃%": bool(rng.integers(2)),
        "maybe": None,
    }
    return {key: value for key, value in values.items() if rng.random() < 0.8}


def one_write(store: Store, model: Model, rng: np.random.Generator) -> str:
    """A random write to both."""
    names = [NAMES[place] for place in rng.choice(len(NAMES), rng.integers(1, 9), replace=False)]
    generation = int(rng.integers(1, 4))
    vectors = unit(rng, len(names), DIMS[generation])
    what = str(rng.choice(["upsert", "delete", "payload", "replace", "replace", "compact", "restore"], p=WEIGHTS))
    if what == "upsert":
        _upsert(store, model, ItemBatch(names, generation, vectors, [payload(rng) for _ in names]))
    elif what == "delete":
        assert store.delete(names) == sum(name in model.items for name in names)
        model.removed |= {name: model.items.pop(name).version for name in names if name in model.items}
    elif what == "payload":
        payloads = {name: payload(rng) for name in names}
        assert store.set_payloads(payloads) == sum(name in model.items for name in names)
        for name in model.items.keys() & payloads:
            model.items[name].payload = payloads[name]
            model.items[name].version += 1
    elif what == "replace":
        _replace(store, model, ItemBatch(names, generation, vectors, [], _guesses(model, names, rng)), rng)
    elif what == "compact":
        forget = bool(rng.integers(2))
        store.compact(forget_kept=forget)
        for item in model.items.values() if forget else ():
            item.kept.clear()
    else:
        _restore(store, model, generation, leave_new=bool(rng.integers(2)))
    return what


WEIGHTS = [0.3, 0.1, 0.1, 0.2, 0.2, 0.05, 0.05]


def check(store: Store, model: Model, rng: np.random.Generator) -> None:
    """The store says what the dict says."""
    fetched = {
        name: (items.generation, row, dict(content), version)
        for items in store.fetch([*NAMES, "unknown"])
        for name, row, content, version in zip(items.ids, items.vectors, items.payloads, items.versions, strict=True)
    }
    assert fetched.keys() == model.items.keys()
    for name, (generation, row, content, version) in fetched.items():
        item = model.items[name]
        assert (generation, content, version) == (item.generation, item.payload, item.version)
        np.testing.assert_allclose(row, item.vector, atol=1e-6)
    assert store.versions([*NAMES, "unknown"]) == {name: item.version for name, item in model.items.items()}
    assert store.payloads(NAMES) == {name: item.payload for name, item in model.items.items()}
    scanned = [(name, items.generation) for items in store.scan(7) for name in items.ids]
    assert sorted(scanned) == sorted((name, item.generation) for name, item in model.items.items())
    assert set(store.sample(1000, 0)) == model.items.keys()
    for place in (0, *rng.choice(len(FILTERS), 2)):
        tree = FILTERS[place]
        where = None if tree is None else parse_filter(tree)
        held = {name: item for name, item in model.items.items() if where is None or matches(where, item.payload)}
        _check_search(store, held, where, rng)


def _check_search(store: Store, held: dict[str, Item], where: Any, rng: np.random.Generator) -> None:
    queries = {number: unit(rng, 2, dim) for number, dim in DIMS.items()}
    found = store.search(queries, 5, where)
    counts: dict[int, int] = {}
    for number in DIMS:
        own = {name: item for name, item in held.items() if item.generation == number}
        counts |= {number: len(own)} if own else {}
        ordered = sorted(own, key=lambda name: own[name].order)
        assert [name for some in store.ids(number, 3, where) for name in some] == ordered
        for query, vector in enumerate(queries[number]):
            best = sorted(((float(item.vector @ vector), name) for name, item in own.items()), reverse=True)[:5]
            assert found[number].ids[query] == [name for _, name in best]
            np.testing.assert_allclose(found[number].scores[query], [score for score, _ in best], atol=1e-5)
    assert store.counts(where) == counts


def _upsert(store: Store, model: Model, items: ItemBatch) -> None:
    store.upsert(items)
    for name, vector, content in zip(items.ids, items.vectors, items.payloads, strict=True):
        former = model.items.get(name)
        version = (former.version if former else model.removed.get(name, 0)) + 1
        if not former:
            model.made += 1
            held = store.versions([name])[name]  # one that was removed goes on counting, some stores leave gaps
            assert held == version or (model.removed and held > version)
            version = held
        order = former.order if former else model.made
        model.items[name] = Item(items.generation, vector, dict(content), version, order)


def _guesses(model: Model, names: list[str], rng: np.random.Generator) -> list[int]:
    if rng.random() < 0.5:
        return []
    return [(model.items[name].version if name in model.items else 1) + int(rng.random() < 0.2) for name in names]


def _replace(store: Store, model: Model, items: ItemBatch, rng: np.random.Generator) -> None:
    keep_old = bool(rng.integers(2))
    left = []
    before = {name: item.generation for name, item in model.items.items()}
    for place, name in enumerate(items.ids):
        item = model.items.get(name)
        stale = bool(item and items.versions and items.versions[place] != item.version)
        if item is None or stale or before[name] >= items.generation:
            left.append(name)
            continue
        if keep_old:
            item.kept[item.generation] = item.vector
        item.generation, item.vector = items.generation, items.vectors[place]
    assert store.replace(items, keep_old=keep_old) == left


def _restore(store: Store, model: Model, generation: int, *, leave_new: bool) -> None:
    newer = [item for item in model.items.values() if item.generation > generation]
    kept = {id(item): max((each for each in item.kept if each <= generation), default=0) for item in newer}
    missing = sum(not kept[id(item)] for item in newer)
    assert store.restore(generation, leave_new=leave_new) == missing
    if missing and not leave_new:
        return
    for item in newer:
        if kept[id(item)]:
            item.generation = kept[id(item)]
            item.vector = item.kept.pop(item.generation)
            item.kept = {each: row for each, row in item.kept.items() if each < item.generation}
