"""A gallery against a dictionary that says what must be true, through random lives.

Few of them by default; NOBACKFILL_LIVES=200 lets as many run on each store, from other random numbers each time.

The items' vectors are made of their text, so a stale vector (of a text that is no longer there) shows.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.gallery.galleries import table_name, unit

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, Generation, parse_filter
from nobackfill.gallery.filters import matches

DIMS = (3, 5, 8)
MODELS = [
    Generation(name=f"m{place}", dim=dim, fingerprint="abc"[place], compatible_with=tuple("abc"[:place]))
    for place, dim in enumerate(DIMS)
]
NAMES = [f"i{number}" for number in range(14)]
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True)
payloads = st.fixed_dictionaries({}, optional={"lang": st.sampled_from(["en", "de"]), "year": st.integers(0, 3)})
wheres = st.sampled_from([None, {"lang": "en"}, {"year": {">": 1}}, {"not": {"lang": "de"}}, {"year": {"in": [0, 3]}}])


def vector(text: int, model: int) -> np.ndarray:
    """A text's vector by a model; each newer one begins with the older one's values."""
    row: np.ndarray = unit(np.random.default_rng(text).standard_normal((1, DIMS[-1]))[:, : DIMS[model]])[0]
    return row


@dataclass
class Item:
    """What must be true of an item: its text, the model of its vector, its payload and version, and what is kept."""

    text: int
    model: int
    payload: dict[str, Any]
    version: int = 1
    kept: set[int] = field(default_factory=set)


class Life(RuleBasedStateMachine):
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.gallery = Gallery.create(self.url.format(folder=self.folder.name, table=table_name()), MODELS[0])
        self.items: dict[str, Item] = {}
        self.versions: dict[str, int] = {}
        self.texts = itertools.count()
        self.models, self.serves = 1, 0

    def teardown(self) -> None:
        self.gallery.store.drop()
        self.gallery.store.close()
        self.folder.cleanup()

    @rule(ids=names, model=st.integers(0, 2), payload=payloads)
    def upsert(self, ids: list[str], model: int, payload: dict[str, Any]) -> None:
        texts = [next(self.texts) for _ in ids]
        rows = np.stack([vector(text, model) for text in texts])
        if not self.serves <= model < self.models:
            with pytest.raises(GalleryError):
                self.gallery.upsert(ids, rows, [payload] * len(ids), fingerprint=MODELS[model].fingerprint)
            return
        self.gallery.upsert(ids, rows, [payload] * len(ids), fingerprint=MODELS[model].fingerprint)
        for name, text in zip(ids, texts, strict=True):
            self.versions[name] = self.versions.get(name, 0) + 1
            self.items[name] = Item(text, model, payload, self.versions[name])

    @rule(ids=names)
    def delete(self, ids: list[str]) -> None:
        assert self.gallery.delete(ids) == sum(name in self.items for name in ids)
        for name in ids:
            self.items.pop(name, None)

    @rule(ids=names, payload=payloads)
    def set_payloads(self, ids: list[str], payload: dict[str, Any]) -> None:
        there = [name for name in ids if name in self.items]
        assert self.gallery.set_payloads(dict.fromkeys(ids, payload)) == len(there)
        for name in there:
            self.versions[name] += 1
            self.items[name].payload, self.items[name].version = payload, self.versions[name]

    @precondition(lambda self: self.models < 3 and self.items)
    @rule()
    def upgrade(self) -> None:
        rows = np.stack([vector(text, self.models) for text in range(20)])
        self.gallery.add_generation(MODELS[self.models], rows)
        self.models += 1

    @rule(
        goal=st.sampled_from(["25%", "50%", "all", 3]),
        keep=st.booleans(),
        batch_size=st.sampled_from([1, 3, 100]),
        meddle=st.lists(st.tuples(st.sampled_from(["upsert", "delete", "payload"]), names), max_size=2),
    )
    def backfill(self, goal: Any, keep: bool, batch_size: int, meddle: list[tuple[str, list[str]]]) -> None:
        newest, left = self.models - 1, list(meddle)
        before = {name for name, item in self.items.items() if item.model == newest}

        def embed(ids: list[str]) -> np.ndarray:
            rows = np.stack([vector(self.items[name].text, newest) for name in ids])
            if left:  # another client writes between the reading of the texts and the writing of the vectors
                kind, some = left.pop()
                if kind == "upsert":
                    self.upsert(some, self.serves, {})
                elif kind == "delete":
                    self.delete(some)
                else:
                    self.set_payloads(some, {"lang": "de"})
            return rows

        texts = {name: item.text for name, item in self.items.items()}
        job = self.gallery.backfill(
            embed, fingerprint=MODELS[newest].fingerprint, target=goal, keep_old=keep, batch_size=batch_size
        )
        assert job.failed == 0
        held = {name: items.generation - 1 for items in self.gallery.store.fetch(NAMES) for name in items.ids}
        for name, model in held.items():
            item = self.items[name]
            if model != item.model:
                assert model == newest
                if keep:
                    item.kept.add(item.model)
                item.model = model
        if not meddle:
            total = len(self.items)
            wanted = {"25%": round(total / 4), "50%": round(total / 2), "all": total}.get(goal, min(3, total))
            assert sum(item.model == newest for item in self.items.values()) == max(wanted, len(before))
            assert {name: item.text for name, item in self.items.items()} == texts
        if goal == "all":
            assert all(item.model == newest for item in self.items.values())

    @rule(to=st.integers(0, 2), leave_new=st.booleans())
    def rollback(self, to: int, leave_new: bool) -> None:
        if to >= self.models:
            return
        newer = [item for item in self.items.values() if item.model > to]
        if not leave_new and any(not any(model <= to for model in item.kept) for item in newer):
            with pytest.raises(GalleryError, match="without a kept vector"):
                self.gallery.rollback(MODELS[to].name)
            return
        self.gallery.rollback(MODELS[to].name, leave_new=leave_new)
        self.serves = min(self.serves, to)
        for item in newer:
            best = [model for model in item.kept if model <= to]
            item.model = max(best) if best else item.model
        for item in self.items.values():
            item.kept = {model for model in item.kept if model < item.model}

    @rule(leave_old=st.booleans())
    def switch(self, leave_old: bool) -> None:
        if not leave_old and any(item.model < self.models - 1 for item in self.items.values()):
            with pytest.raises(GalleryError, match="not embedded by"):
                self.gallery.switch()
            return
        self.gallery.switch(leave_old=leave_old)
        self.serves = self.models - 1

    @rule(where=wheres, model=st.integers(0, 2), k=st.sampled_from([2, 50]))
    def search(self, where: Any, model: int, k: int) -> None:
        query = vector(1000 + model, model)
        if not self.serves <= model < self.models:
            with pytest.raises(GalleryError):
                self.gallery.search(query[None], k, MODELS[model].fingerprint, where=where)
            return
        (hits,) = self.gallery.search(query[None], k, MODELS[model].fingerprint, where=where)
        scores = {}
        manifest = self.gallery.manifest
        for name, item in self.items.items():
            if item.model >= self.serves and matches(parse_filter(where or {}), item.payload):
                size = min(DIMS[model], DIMS[item.model])
                score = float(query[:size] @ vector(item.text, item.model)[:size])
                if item.model > model:  # an older query: γ
                    score /= manifest.generations[item.model].scales[MODELS[model].fingerprint]
                scores[name] = score
        best = sorted(scores, key=lambda name: -scores[name])[:k]
        assert [hit.id for hit in hits] == best
        np.testing.assert_allclose([hit.score for hit in hits], [scores[name] for name in best], atol=1e-5)
        assert [hit.payload for hit in hits] == [self.items[name].payload for name in best]

    @rule(forget=st.booleans())
    def compact(self, forget: bool) -> None:
        self.gallery.store.compact(forget_kept=forget)
        if forget:
            for item in self.items.values():
                item.kept = set()

    @invariant()
    def every_item_is_what_it_must_be(self) -> None:
        found = {}
        for items in self.gallery.store.fetch(NAMES):
            rows = zip(items.ids, items.vectors, items.payloads, items.versions, strict=True)
            for name, row, payload, version in rows:
                item = self.items[name]
                assert (items.generation - 1, payload, version) == (item.model, item.payload, item.version)
                np.testing.assert_allclose(row, vector(item.text, item.model), atol=1e-6)
                found[name] = items.generation
        assert set(found) == set(self.items)
        counts = self.gallery.store.counts()
        assert counts == {number: list(found.values()).count(number) for number in sorted(set(found.values()))}


URLS = {
    "faiss": "faiss:{folder}/store",
    "postgresql": "",  # of the server
    "qdrant": "qdrant:{folder}/store",
    "lance": "lance:{folder}/store",
    "milvus": "milvus:{folder}/store.db",
}
NEEDS = {"qdrant": "qdrant_client", "lance": "lancedb", "milvus": "milvus_lite"}
FEW = {"lance": 2, "milvus": 1}  # that take seconds each


@pytest.mark.parametrize("kind", URLS)
def test_lives(kind: str, request: pytest.FixtureRequest) -> None:
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    url = URLS[kind] or request.getfixturevalue("server").replace("{", "{{") + "#{table}"
    machine = type("OneLife", (Life,), {"url": url})
    wanted = int(os.environ.get("NOBACKFILL_LIVES", "0"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=wanted or FEW.get(kind, 8),
            stateful_step_count=25,
            deadline=None,
            derandomize=not wanted,
            suppress_health_check=list(HealthCheck),
        ),
    )
