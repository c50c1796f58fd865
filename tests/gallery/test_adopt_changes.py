"""What the application does to its rows counts at once: no vector of an older content is ever found or kept."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gallery.applications import NAME, SECOND, TABLE, Application, backfilled, text
from tests.gallery.galleries import COUNT, NEW_VECTORS, OLD, OLD_VECTORS, unit

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, ItemBatch, Store
from nobackfill.gallery.adopting import abandon
from nobackfill.gallery.stores.adopted_layout import side_schema

LAYOUTS = ("new-column", "same-column")
OTHER = unit(np.random.default_rng(9).standard_normal((COUNT, OLD)))


@pytest.fixture
def application(server: str) -> Iterator[Application]:
    made = Application(server)
    yield made
    made.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_that_the_application_changes_is_old_again(application: Application, layout: Any) -> None:
    gallery = application.adopt(layout=layout)
    gallery.upgrade(SECOND, application.embed, sample=20)
    backfilled(gallery, application)
    application.write(3, OTHER[3])
    assert gallery.store.counts() == {1: 1, 2: COUNT - 1}
    assert list(gallery.store.ids(1)) == [["3"]]
    best = gallery.search(OTHER[3:4], 1, f"name:{NAME}")[0][0]
    assert (best.id, best.generation) == ("3", NAME)
    assert best.score == pytest.approx(1, abs=1e-5)
    found = {hit.id: hit for hit in gallery.search(NEW_VECTORS[3:4], COUNT, SECOND.fingerprint)[0]}
    assert (len(found), found["3"].generation) == (COUNT, NAME)
    assert found["3"].score == pytest.approx(float(NEW_VECTORS[3, :OLD] @ OTHER[3]), abs=1e-5)
    assert gallery.verify() == []
    gallery.rollback(NAME)
    np.testing.assert_allclose(gallery.store.fetch(["3"])[0].vectors[0], OTHER[3], atol=1e-6)
    np.testing.assert_allclose(gallery.store.fetch(["4"])[0].vectors[0], OLD_VECTORS[4], atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_come_go_or_lose_their_vector(application: Application, layout: Any) -> None:
    gallery = application.adopt(layout=layout)
    gallery.upgrade(SECOND, application.embed, sample=20)
    backfilled(gallery, application, 30)
    application.run("DELETE FROM {schema}.{table} WHERE {key} IN (1, 50)")
    application.write(2, None)
    application.run("INSERT INTO {schema}.{table} ({key}, owner, {vector}) VALUES (100, 1, %s)", text(OTHER[0]))
    application.run("INSERT INTO {schema}.{table} ({key}, owner) VALUES (101, 1)")
    application.run("INSERT INTO {schema}.{table} ({key}, owner, {vector}) VALUES (1, 1, %s)", text(OTHER[1]))
    assert gallery.store.counts() == {1: COUNT - 30 + 1, 2: 28}
    assert gallery.store.fetch(["2", "50", "101", "none", "007", "9" * 30]) == []
    assert gallery.store.fetch(["1"])[0].generation == 1
    assert sorted(gallery.store.sample(1000, 0)) == sorted({*application.ids, "100"} - {"2", "50"})
    assert gallery.verify() == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_vector_of_an_older_content_is_not_written(application: Application, layout: Any) -> None:
    gallery = application.adopt(layout=layout)
    gallery.upgrade(SECOND, application.embed, sample=20)
    store = gallery.store
    read = store.versions(["1", "2", "3", "gone"])
    assert set(read) == {"1", "2", "3"}
    application.write(2, OTHER[2])
    application.run("DELETE FROM {schema}.{table} WHERE {key} = 3")
    items = ItemBatch(["1", "2", "3"], 2, NEW_VECTORS[1:4], [], [read[name] for name in "123"])
    assert store.replace(items, keep_old=True) == ["2", "3"]
    assert store.counts() == {1: COUNT - 2, 2: 1}
    assert store.replace(items, keep_old=True) == ["1", "2", "3"]  # of this generation already
    again = ItemBatch(["2"], 2, NEW_VECTORS[2:3], [], [store.versions(["2"])["2"]])
    assert store.replace(again, keep_old=True) == []
    assert store.fetch(["2"])[0].versions == [store.versions(["2"])["2"]]


def test_abandoning_amid_a_backfill_loses_no_vector_of_the_application(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = "SELECT {key}, {vector}::text FROM {schema}.{table} ORDER BY {key}"
    before = application.run(vectors)
    gallery = application.adopt(layout="same-column")
    gallery.upgrade(SECOND, application.embed, sample=20)
    store, refusals = gallery.store, list[str]()

    def asked(_: int, __: object) -> None:
        with pytest.raises(GalleryError, match="a backfill is running; stop it") as caught:
            abandon(store)
        refusals.append(str(caught.value))

    gallery.backfill(
        application.embed, fingerprint=SECOND.fingerprint, target=32, order="oldest", batch_size=16, on_batch=asked
    )
    assert (len(refusals), store.counts()) == (2, {1: COUNT - 32, 2: 32})
    real, late = store.restore, ItemBatch(["40", "41"], 2, NEW_VECTORS[40:42], [])

    def restore(generation: int) -> int:
        without = real(generation)
        assert store.replace(late, keep_old=True) == []  # by a process that has lost its lock
        return without

    monkeypatch.setattr(store, "restore", restore)
    abandon(store)
    assert application.run(vectors) == before
    side = side_schema(application.schema, TABLE)
    assert not application.run("SELECT 1 FROM pg_namespace WHERE nspname = %s", side)


class Model:
    """A table with three generations, and what must be true of it: of each row a pile of vectors, the newest on top."""

    dims = (4, 6, 8)

    def __init__(self, store: Store, connection: psycopg.Connection[Any], table: str, layout: str) -> None:
        self.store, self.connection, self.table, self.layout = store, connection, table, layout
        self.connection.execute(f"DELETE FROM {table}")
        self.puts = 0
        self.piles: dict[int, list[tuple[int, np.ndarray]]] = {}

    def put(self, row: int, seed: int) -> None:
        self.puts += 1  # a content of its own: what was made for the same one before would be right again
        vector = random(4, 100 * self.puts + seed)
        self.connection.execute(
            f"INSERT INTO {self.table} VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
            (row, text(2 * vector)),
        )
        self.piles[row] = [(1, vector)]

    def null(self, row: int, _: int) -> None:
        self.connection.execute(f"UPDATE {self.table} SET v = NULL WHERE id = %s", (row,))
        self.piles.pop(row, None)

    def delete(self, row: int, _: int) -> None:
        self.connection.execute(f"DELETE FROM {self.table} WHERE id = %s", (row,))
        self.piles.pop(row, None)

    def replace(self, row: int, seed: int) -> None:
        generation, keep_old, rows = 2 + seed % 2, seed % 3 > 0, [row, (row + 1) % 6, (row + 3) % 6]
        made = [random(self.dims[generation - 1], seed + each) for each in rows]
        items = ItemBatch([str(each) for each in rows], generation, np.stack(made), [])
        left = self.store.replace(items, keep_old=keep_old)
        expected = []
        for each, vector in zip(rows, made, strict=True):
            pile = self.piles.get(each)
            if pile is None or pile[-1][0] >= generation:
                expected.append(str(each))
                continue
            # The application's own column stays in any case, where new vectors have columns of their own.
            kept = pile if keep_old else pile[: 1 if self.layout == "new-column" else 0]
            if not keep_old and self.layout == "same-column":
                kept = pile[:-1]
            self.piles[each] = [*kept, (generation, vector)]
        assert sorted(left) == sorted(expected)

    def restore(self, _: int, seed: int) -> None:
        generation = 1 + seed % 2
        without = [row for row, pile in self.piles.items() if pile[0][0] > generation]
        assert self.store.restore(generation) == len(without)
        if not without:
            self.piles = {
                row: [(number, vector) for number, vector in pile if number <= generation]
                for row, pile in self.piles.items()
            }

    def check(self) -> None:
        tops = {str(row): pile[-1] for row, pile in self.piles.items()}
        found = {
            name: (items.generation, vector)
            for items in self.store.scan(4)
            for name, vector in zip(items.ids, items.vectors, strict=True)
        }
        assert {name: top[0] for name, top in tops.items()} == {name: top[0] for name, top in found.items()}
        for name, (generation, vector) in tops.items():
            np.testing.assert_allclose(found[name][1], self.stored(generation, vector), atol=1e-6)
        queries = {number: random(self.dims[number - 1], number)[None] for number in (1, 2, 3)}
        for number, nearest in self.store.search(queries, 10).items():
            scores = {
                name: float(queries[number][0] @ self.stored(number, vector))
                for name, (generation, vector) in tops.items()
                if generation == number
            }
            assert set(nearest.ids[0]) == set(scores)
            np.testing.assert_allclose(nearest.scores[0], sorted(scores.values(), reverse=True), atol=1e-5)

    def check_best(self) -> None:
        """The best of all generations, on a scale that all share, are those of brute force."""
        query = random(8, 5)
        queries = {1: query[None, :4], 2: query[None, :6], 3: query[None]}
        scales = {1: (np.array([0.5], np.float32), np.array([0.25], np.float32))}
        for asked in ((1, 2, 3), (2, 3), (3,)):
            scored = [
                (float(queries[pile[-1][0]][0] @ self.stored(*pile[-1])) * (0.5 if pile[-1][0] == 1 else 1))
                + (0.25 if pile[-1][0] == 1 else 0)
                for pile in self.piles.values()
                if pile[-1][0] in asked
            ]
            for k in (1, 3, 10):
                found = self.store.best({number: queries[number] for number in asked}, k, None, lambda: scales)
                if self.layout == "new-column":
                    assert found is not None
                best = [] if found is None else [each.score for each in found[0]]
                if found is not None:
                    np.testing.assert_allclose(best, sorted(scored, reverse=True)[:k], atol=1e-5)
                    assert all(each.generation == self.piles[int(each.id)][-1][0] for each in found[0])

    def stored(self, generation: int, vector: np.ndarray) -> np.ndarray:
        if generation == 1 or self.layout == "new-column":
            return vector
        part = np.zeros_like(vector)
        part[:4] = vector[:4] / np.linalg.norm(vector[:4])
        return part


def random(dim: int, seed: int) -> np.ndarray:
    row: np.ndarray = unit(np.random.default_rng([dim, seed]).standard_normal((1, dim)))[0]
    return row


@pytest.fixture(params=LAYOUTS)
def small(request: pytest.FixtureRequest, server: str) -> Iterator[tuple[Store, Any, str, str]]:
    table = f"t{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f"CREATE TABLE {table} (id integer PRIMARY KEY, v vector(4))")
        gallery = Gallery.adopt(f"{server}#{table}", "old", vector_column="v", layout=request.param)
        gallery.store.add_generation(2, 6)
        gallery.store.add_generation(3, 8)
        yield gallery.store, connection, table, request.param
        gallery.store.drop(leave_new=True)  # type: ignore[call-arg]
        gallery.store.close()
        connection.execute(f"DROP TABLE {table}")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "replace", "replace", "replace", "null", "delete", "restore"]),
        st.integers(0, 5),
        st.integers(0, 11),
    ),
    min_size=6,
    max_size=24,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_each_row_has_the_vector_of_its_content(
    small: tuple[Store, Any, str, str], steps: list[tuple[str, int, int]]
) -> None:
    model = Model(*small)
    for row in range(4):
        model.put(row, row)
    for name, row, seed in steps:
        getattr(model, name)(row, seed)
    model.check()
    model.check_best()
