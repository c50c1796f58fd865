"""What the owner of an adopted table does to it: other norms, columns renamed, another table in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.gallery.applications import KEY, NAME, SECOND, VECTOR, Application, backfilled
from tests.gallery.galleries import COUNT, NEW_VECTORS, OLD_VECTORS

from nobackfill.errors import GalleryError
from nobackfill.gallery import open_store
from nobackfill.gallery.adopting import abandon, plan_adoption

LAYOUTS = ("new-column", "same-column")


@pytest.fixture
def application(server: str) -> Iterator[Application]:
    made = Application(server)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_all_norms_count_where_the_index_is_not_for_cosine(
    server: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nobackfill.gallery.stores.adopted_inspection.SAMPLE", 10)
    made = Application(server, kind=kind)
    made.run("DROP INDEX {schema}.by_vector")
    made.run(f"CREATE INDEX by_vector ON {{schema}}.{{table}} USING hnsw ({{vector}} {kind}_ip_ops)")
    gallery = made.adopt()
    assert gallery.store.table().adoption.metric == "ip"  # type: ignore[attr-defined]
    assert gallery.verify() == []
    made.write(30, 10 * OLD_VECTORS[30])
    (problem,) = gallery.verify()
    assert problem.startswith("item '30': its vector has norm 10.00")
    abandon(gallery.store)
    plan = plan_adoption(made.url, NAME, vector_column=VECTOR, id_column=KEY)
    assert any("the vectors have other norms than 1" in note for note in plan.notes)
    gallery = made.adopt()
    assert gallery.store.table().adoption.metric is None  # type: ignore[attr-defined]
    assert gallery.search(OLD_VECTORS[30:31], 1, f"name:{NAME}")[0][0].score == pytest.approx(1, abs=1e-3)
    made.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_renamed_column_is_named_and_abandoning_goes_on(application: Application, layout: Any) -> None:
    before = application.dump()
    rename = "ALTER TABLE {schema}.{table} RENAME COLUMN {vector} TO elsewhere"
    back = "ALTER TABLE {schema}.{table} RENAME COLUMN elsewhere TO {vector}"
    gallery = application.adopt(layout=layout)
    gallery.search(OLD_VECTORS[:1], 1, f"name:{NAME}")
    application.run(rename)
    for look in (gallery.status, lambda: gallery.search(OLD_VECTORS[:1], 1, f"name:{NAME}"), application.open().status):
        with pytest.raises(GalleryError, match=r"has no column 'emb.*edding' any more"):
            look()
    abandon(application.open().store)
    application.run(back)
    assert application.dump() == before
    gallery = application.adopt(layout=layout)
    gallery.upgrade(SECOND, application.embed, sample=20)
    backfilled(gallery, application)
    application.run(rename)
    with pytest.raises(GalleryError, match=r"'emb.*edding' any more: .*; undo that, or `gallery abandon --leave-new`"):
        abandon(gallery.store)  # nobody can tell whether a row would lose its only vector
    abandon(gallery.store, leave_new=True)
    left = open_store(application.url)
    assert left.read("manifest") is None
    left.close()


def test_a_table_in_the_place_of_the_adopted_one_is_told_from_it(application: Application) -> None:
    gallery = application.adopt()
    gallery.upgrade(SECOND, application.embed, sample=20)
    backfilled(gallery, application)
    application.run("ALTER TABLE {schema}.{table} RENAME TO former")
    application.run("CREATE TABLE {schema}.{table} AS SELECT {key}, {vector} FROM {schema}.former")
    for look in (gallery.status, lambda: gallery.search(NEW_VECTORS[:1], 1, SECOND.fingerprint)):
        with pytest.raises(
            GalleryError, match="has no column 'nobackfill_2' any more: .* another table has this one's"
        ):
            look()
    abandon(gallery.store)
    assert application.run("SELECT count(*) FROM {schema}.{table}") == [(COUNT,)]
    left = open_store(application.url)
    assert left.read("manifest") is None
    left.close()
