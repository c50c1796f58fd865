"""A small gallery with awkward ids, shared by the tests of every store."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest

from nobackfill.gallery import Embedded, Gallery, Generation, Store

OLD, NEW, THIRD = 6, 9, 12
COUNT = 60


def unit(vectors: np.ndarray) -> np.ndarray:
    rows: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def vectors(dim: int, seed: int, count: int = COUNT) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dim)))


IDS = [f"photo/{number} ☃'\"; drop table x" for number in range(COUNT)]
PAYLOADS: list[dict[str, Any]] = [{"label": number % 7, "class": f"c<{number % 7}>"} for number in range(COUNT)]
OLD_VECTORS = vectors(OLD, 0)
NEW_VECTORS = unit(vectors(NEW, 1) + np.pad(OLD_VECTORS, ((0, 0), (0, NEW - OLD))))  # compatible, but not the same
FIRST = Generation(name="first", dim=OLD, fingerprint="a" * 64)
SECOND = Generation(name="second", dim=NEW, fingerprint="b" * 64, compatible_with=("a" * 64,))
LAST = Generation(name="third", dim=THIRD, fingerprint="c" * 64, compatible_with=("b" * 64, "a" * 64))


def table_name() -> str:
    return f'a "table" {uuid.uuid4().hex}'  # a name that would end a careless statement


def fresh(store: Store, count: int = COUNT) -> Gallery:
    batches: list[tuple[list[str], Any, list[Any]]] = [
        (IDS[start : start + 25], 3.0 * OLD_VECTORS[start : start + 25], list(PAYLOADS[start : start + 25]))
        for start in range(0, count, 25)
    ]
    return Gallery.create(store, FIRST, batches, source="digits")


def upgraded(store: Store) -> Gallery:
    gallery = fresh(store)
    gallery.upgrade(SECOND, embed)
    return gallery


class PowerError(Exception):
    """A process ends here, as if the power had failed."""


def kill_rollback(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roll back to `first`, and end as soon as the items are back."""
    real = gallery.store.restore

    def restore(generation: int) -> int:
        real(generation)
        raise PowerError

    with monkeypatch.context() as patch, pytest.raises(PowerError):
        patch.setattr(gallery.store, "restore", restore)
        gallery.rollback("first")


def all_ids(store: Store, generation: int) -> list[str]:
    return [name for ids in store.ids(generation, 7) for name in ids]


def embed(ids: list[str]) -> Embedded:
    return Embedded(ids, 2.0 * NEW_VECTORS[[IDS.index(name) for name in ids]], {})


def answers(
    gallery: Gallery, queries: np.ndarray, generation: Generation, k: int = COUNT
) -> list[list[tuple[str, float]]]:
    found = gallery.search(queries, k, generation.fingerprint)
    return [[(hit.id, hit.score) for hit in line] for line in found]


def padded(new: set[str]) -> np.ndarray:
    """One index of the newest size: new items at unit norm, old ones as [φ ; 0]."""
    rows = np.zeros((COUNT, NEW), np.float32)
    rows[:, :OLD] = OLD_VECTORS
    for place, name in enumerate(IDS):
        if name in new:
            rows[place] = NEW_VECTORS[place]
    return rows


def assert_same(found: list[list[tuple[str, float]]], scores: np.ndarray, atol: float = 1e-6) -> None:
    for line, wanted in zip(found, scores, strict=True):
        assert {name for name, _ in line} == set(IDS)
        np.testing.assert_allclose([score for _, score in line], np.sort(wanted)[::-1], atol=atol)
        for name, score in line:
            assert score == pytest.approx(wanted[IDS.index(name)], abs=atol)
