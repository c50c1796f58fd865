"""A table with partitions, as a gallery: its indexes, partitions that come later, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from tests.gallery.applications import KEY, NAME, SECOND, VECTOR, Application, backfilled
from tests.gallery.galleries import COUNT, NEW_VECTORS
from tests.gallery.test_adopt_changes import LAYOUTS, STEPS, Model

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, ItemBatch
from nobackfill.gallery.adopting import abandon, plan_adoption
from nobackfill.gallery.stores import adopted_partitions

INDEXES = (
    "SELECT c.relname, i.indisvalid, c.relkind::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname LIKE 'nobackfill%%' ORDER BY 1"
)

OVER = (
    "SELECT i.indisvalid FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
    "WHERE (i.indrelid = %s::regclass OR i.indrelid IN (SELECT relid FROM pg_partition_tree(%s))) AND a.attname = %s"
)


@pytest.fixture
def application(server: str) -> Iterator[Application]:
    made = Application(server, parted=True)
    yield made
    made.close()


def indexes(application: Application) -> list[tuple[Any, ...]]:
    return list(application.connection.execute(INDEXES, (application.schema,)))


def test_each_partition_has_its_part_of_one_valid_index(application: Application) -> None:
    plan = plan_adoption(application.url, NAME, vector_column=VECTOR, id_column=KEY)
    assert " ON ONLY " in plan.later[1]
    assert "CONCURRENTLY" not in plan.later[1]
    assert "partition by partition" in plan.notes[-1]
    gallery = application.adopt()
    gallery.upgrade(SECOND, application.embed, sample=20)
    made = indexes(application)
    assert len(made) == 5  # of the table, a partition with partitions, and three with rows
    assert all(valid for _, valid, _ in made)
    assert sorted(kind for *_, kind in made) == ["I", "I", "i", "i", "i"]
    backfilled(gallery, application, 30)
    application.connection.execute("SET enable_seqscan = off")
    application.connection.execute("SET enable_sort = off")
    plan_of = application.run(
        "EXPLAIN SELECT 1 FROM {schema}.{table} ORDER BY nobackfill_2 <#> %s LIMIT 3", str(NEW_VECTORS[0].tolist())
    )
    assert sum("Index Scan using" in line for (line,) in plan_of) == 3


def test_an_index_build_that_was_interrupted_is_finished(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = application.dump()
    gallery = application.adopt()
    real: Any = adopted_partitions.build_indexes

    def interrupted(*arguments: Any) -> None:
        *rest, briefly = arguments

        def once(statement: str) -> None:
            if "ATTACH" in statement:
                raise KeyboardInterrupt
            briefly(statement)

        real(*rest, once)

    monkeypatch.setattr("nobackfill.gallery.stores.adopted_ddl.build_indexes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gallery.upgrade(SECOND, application.embed, sample=20)
    assert [valid for _, valid, _ in indexes(application)].count(False) == 2
    monkeypatch.undo()
    gallery.upgrade(SECOND, application.embed, sample=20)
    assert all(valid for _, valid, _ in indexes(application))
    abandon(gallery.store)
    assert indexes(application) == []
    assert application.dump() == before


def test_each_model_has_its_index_whatever_an_earlier_gallery_left(server: str) -> None:
    """An index left over a renamed column keeps its name; of a long table's partitions all models' are cut alike."""
    name = f"{uuid.uuid4().hex}{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        for parted in (False, True):
            table, by = f"{'t' if parted else 's'}{name}", " PARTITION BY RANGE (id)" if parted else ""
            connection.execute(f"CREATE TABLE {table} (id integer PRIMARY KEY, v vector(4)){by}")
            if parted:
                connection.execute(f"CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (0) TO (9)")
            connection.execute(f"CREATE INDEX ON {table} USING hnsw (v vector_cosine_ops)")
            connection.execute(f"INSERT INTO {table} VALUES (1, '[1,2,3,4]')")
            for left in ("first", "second"):
                gallery = Gallery.adopt(f"{server}#{table}", "old", vector_column="v")
                gallery.store.add_generation(2, 6)
                gallery.store.add_generation(3, 8)
                gallery.store.add_generation(3, 8)
                row = ItemBatch(["1"], 2, np.eye(1, 6, dtype=np.float32), [])
                assert gallery.store.replace(row, keep_old=True) == []
                for number in (2, 3):
                    found = connection.execute(OVER, (table, table, f"nobackfill_{number}")).fetchall()
                    assert [valid for (valid,) in found] == [True] * (1 + parted)
                gallery.store.drop(leave_new=True)  # type: ignore[call-arg]
                gallery.store.close()
                connection.execute(f"ALTER TABLE {table} RENAME COLUMN nobackfill_2 TO {left}")
            connection.execute(f"DROP TABLE {table}")


def test_a_partition_that_comes_later_takes_part(application: Application) -> None:
    gallery = application.adopt()
    gallery.upgrade(SECOND, application.embed, sample=20)
    backfilled(gallery, application)
    application.run("DELETE FROM {schema}.{table} WHERE {key} IN (SELECT {key} FROM {schema}.part11)")
    left = gallery.count()
    application.run("ALTER TABLE {schema}.part1 DETACH PARTITION {schema}.part11")
    application.run("DROP TABLE {schema}.part11")
    application.run("CREATE TABLE {schema}.later PARTITION OF {schema}.part1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    made = "SELECT indexdef FROM pg_indexes WHERE schemaname = %s AND tablename = 'later' AND indexdef LIKE %s"
    ours = application.connection.execute(made, (application.schema, "%USING hnsw (nobackfill_2 %")).fetchall()
    assert len(ours) == 1
    for place in range(COUNT):
        application.run(
            "INSERT INTO {schema}.{table} ({key}, owner, {vector}) VALUES (%s, 1, %s) ON CONFLICT DO NOTHING",
            int(application.ids[place]),
            str(NEW_VECTORS[place, :6].tolist()),
        )
    assert gallery.store.counts() == {1: COUNT - left, 2: left}
    backfilled(gallery, application)
    assert gallery.store.counts() == {2: COUNT}
    hits = gallery.search(NEW_VECTORS[:9], 1, SECOND.fingerprint)
    assert [line[0].id for line in hits] == application.ids[:9]
    np.testing.assert_allclose([line[0].score for line in hits], 1, atol=1e-5)
    assert gallery.verify() == []


def test_ids_that_are_unique_only_with_the_partition_key_are_refused(application: Application) -> None:
    application.run(
        "CREATE TABLE {schema}.monthly (id bigint, month int, embedding vector(3), PRIMARY KEY (id, month)) "
        "PARTITION BY LIST (month)"
    )
    with pytest.raises(GalleryError, match="only the column has by which it is partitioned") as caught:
        plan_adoption(f"{application.server}#{application.schema}.monthly", NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_whatever_happens_each_row_has_the_vector_of_its_content(
    server: str, layout: Any, steps: list[tuple[str, int, int]]
) -> None:
    table = f"t{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f"CREATE TABLE {table} (id integer PRIMARY KEY, v vector(4)) PARTITION BY RANGE (id)")
        for place in (0, 3):
            connection.execute(
                f"CREATE TABLE {table}_{place} PARTITION OF {table} FOR VALUES FROM ({place}) TO ({place + 3})"
            )
        gallery = Gallery.adopt(f"{server}#{table}", "old", vector_column="v", layout=layout)
        gallery.store.add_generation(2, 6)
        gallery.store.add_generation(3, 8)
        model = Model(gallery.store, connection, table, layout)
        for row in range(4):
            model.put(row, row)
        for name, row, seed in steps:
            getattr(model, name)(row, seed)
        model.check()
        gallery.store.drop(leave_new=True)  # type: ignore[call-arg]
        gallery.store.close()
        connection.execute(f"DROP TABLE {table}")
