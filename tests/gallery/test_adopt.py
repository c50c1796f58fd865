"""A table that an application made and goes on using, as a gallery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.gallery.applications import KEY, NAME, SECOND, TABLE, VECTOR, Application, backfilled
from tests.gallery.galleries import COUNT, NEW, NEW_VECTORS, OLD, OLD_VECTORS, padded, vectors

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, open_store
from nobackfill.gallery.adopting import abandon, abandon_statements, plan_adoption

LAYOUTS = ("new-column", "same-column")
QUERIES = vectors(NEW, 2, 5)


@pytest.fixture(params=["bigint", "uuid", "text", "parted"])
def application(request: pytest.FixtureRequest, server: str) -> Iterator[Application]:
    parted = request.param == "parted"
    made = Application(server, "bigint" if parted else request.param, scale=3.0, parted=parted)
    yield made
    made.close()


@pytest.fixture
def plain(server: str) -> Iterator[Application]:
    made = Application(server, scale=3.0)
    yield made
    made.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_whole_life_of_an_adopted_table(application: Application, layout: Any) -> None:
    before, rows = application.dump(), content(application)
    gallery = application.adopt(layout=layout)
    assert gallery.status().items == (COUNT,)
    assert gallery.verify() == []
    gallery.upgrade(SECOND, application.embed, sample=20)
    check(gallery, application, layout, 0)
    assert content(application) == rows  # nothing was rewritten
    backfilled(gallery, application, 20)
    check(gallery, application, layout, 20)
    backfilled(gallery, application)
    again = application.open()
    check(again, application, layout, COUNT)
    assert len(application.search(OLD_VECTORS[0])) == COUNT  # with its own client, as ever
    again.rollback(NAME)
    assert again.store.counts() == {1: COUNT}
    assert content(application, "owner", VECTOR) == content(application, "owner", VECTOR, rows=rows)
    if again.manifest.generations[-1].name == NAME:  # the newer one was forgotten
        again.upgrade(SECOND, application.embed, sample=20)
    backfilled(again, application, 7)
    check(again, application, layout, 7)
    abandon(again.store)
    assert application.dump() == before
    assert content(application, "owner", VECTOR) == content(application, "owner", VECTOR, rows=rows)
    left = open_store(application.url)
    assert left.read("manifest") is None
    left.close()


def test_a_plan_changes_nothing_and_says_everything(plain: Application) -> None:
    before = plain.dump()
    plan = plan_adoption(plain.url, NAME, vector_column=VECTOR, id_column=KEY)
    assert plain.dump() == before
    assert all(statement.startswith("CREATE ") for statement in plan.statements)
    assert plan.later[0].startswith("ALTER TABLE ")
    assert plan.later[0].endswith(
        "ADD COLUMN nobackfill_2_by xid, ADD COLUMN nobackfill_2_of bytea, ADD COLUMN nobackfill_2 vector(DIM)"
    )
    assert "CREATE INDEX CONCURRENTLY" in plan.later[1]
    assert plan.later[1].endswith("USING hnsw (nobackfill_2 vector_ip_ops) WITH (m=12)")
    notes = " ".join(plan.notes)
    assert "these triggers run for each: touched" in notes
    assert "other norms than 1" in notes
    ran: list[str] = []
    for statement in plan.statements:
        plain.connection.execute(statement.replace("%", "%%"), ())
        ran.append(statement)
    gallery = plan.carry_out()  # an administrator has made them all
    assert gallery.counts() == {1: COUNT}
    assert abandon_statements(gallery)[-1].startswith("DROP SCHEMA")
    gallery.close()


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
@pytest.mark.parametrize("operators", ["cosine", "ip", "l2", None])
def test_every_index_of_the_application_is_used_as_it_is_meant(server: str, kind: str, operators: str | None) -> None:
    made = Application(server, kind=kind)
    made.run("DROP INDEX {schema}.by_vector")
    if operators:
        made.run(f"CREATE INDEX by_vector ON {{schema}}.{{table}} USING hnsw ({{vector}} {kind}_{operators}_ops)")
    gallery = made.adopt()
    assert gallery.store.table().adoption.metric == operators  # type: ignore[attr-defined]
    gallery.upgrade(SECOND, made.embed, sample=20)
    backfilled(gallery, made, 20)
    np.testing.assert_allclose(scored(gallery, made), brute_force("new-column", 20), atol=3e-3)
    made.close()


def test_an_index_that_would_order_otherwise_is_not_used(server: str) -> None:
    made = Application(server, scale=3.0)
    made.run(
        "UPDATE {schema}.{table} SET {vector} = (l2_normalize({vector})::real[] || '{{}}')::vector WHERE year > 2030"
    )
    made.run("DROP INDEX {schema}.by_vector")
    made.run("CREATE INDEX by_vector ON {schema}.{table} USING hnsw ({vector} vector_ip_ops)")
    plan = plan_adoption(made.url, NAME, vector_column=VECTOR, id_column=KEY)
    assert any("searches read all rows" in note for note in plan.notes)
    gallery = made.adopt()
    gallery.upgrade(SECOND, made.embed, sample=20)
    np.testing.assert_allclose(scored(gallery, made), brute_force("new-column", 0), atol=1e-5)
    made.close()


@pytest.mark.parametrize("style", ["{schema}.{table}", '"{schema}"."{doubled}"', "{table}"])
def test_names_of_tables(plain: Application, style: str) -> None:
    name = style.format(schema=plain.schema, table=TABLE, doubled=TABLE.replace('"', '""'))
    url = f"{plain.server}#{name}"
    if style == "{table}":
        with pytest.raises(GalleryError, match="no table"):
            plan_adoption(url, NAME, vector_column=VECTOR, id_column=KEY)
        return
    gallery = Gallery.adopt(url, NAME, vector_column=VECTOR, id_column=KEY, fingerprint="f" * 64)
    assert gallery.manifest.generations[0].fingerprint == "f" * 64
    assert plain.open().status().total == COUNT
    gallery.store.close()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("ALTER TABLE {schema}.{table} ADD COLUMN nobackfill_2 integer", {}, "has a column 'nobackfill_2' already"),
        ("ALTER TABLE {schema}.{table} ALTER COLUMN {vector} TYPE real[]", {}, "is of type real"),
        ("UPDATE {schema}.{table} SET {vector} = NULL", {"vector_column": "embeddings"}, "no column 'embeddings'"),
        ("SELECT 1", {"id_column": "year"}, "are not known to be unique"),
        ("SELECT 1", {"id_column": "price"}, "are of type real; expected integers, text or uuid"),
        ("SELECT 1", {"payload_columns": ("none",)}, "no column 'none'"),
    ],
)
def test_what_cannot_be_adopted(plain: Application, change: str, options: dict[str, Any], message: str) -> None:
    plain.run("DROP INDEX {schema}.by_vector")
    plain.run(change)
    with pytest.raises(GalleryError, match=message) as caught:
        plain.adopt(**options)
    assert "\n" not in str(caught.value)


def test_a_damaged_journal_does_not_keep_a_table_from_being_abandoned(plain: Application) -> None:
    gallery = plain.adopt()
    gallery.store.write("job", b"x")
    abandon(gallery.store)
    plain.adopt()


def test_a_refused_abandon_leaves_a_backfill_that_can_go_on(
    plain: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = plain.adopt()
    gallery.upgrade(SECOND, plain.embed, sample=20)

    def stop(_: int, __: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.backfill(
            plain.embed, fingerprint=SECOND.fingerprint, target=20, order="oldest", batch_size=10, on_batch=stop
        )
    monkeypatch.setattr(gallery.store, "_without_older", lambda _: 1)
    before = gallery.status().job
    assert before is not None
    with pytest.raises(GalleryError, match="rows that have no vector but a new one: 1"):
        abandon(gallery.store)
    assert gallery.status().job == before
    assert not before.finished


def test_a_table_is_adopted_once_and_keeps_its_rows_to_itself(plain: Application) -> None:
    gallery = plain.adopt()
    with pytest.raises(GalleryError, match="is a gallery already"):
        plain.adopt()
    for write in (gallery.store.delete, gallery.store.set_payloads):
        with pytest.raises(GalleryError, match="belong to the application"):
            write(["1"])  # type: ignore[arg-type]
    other = open_store(f"{plain.server}#nothing of the kind")
    with pytest.raises(GalleryError, match="was not adopted"):
        abandon(other)
    other.close()


def content(application: Application, *names: str, rows: list[Any] | None = None) -> list[Any]:
    """All rows of the application's own columns, or of some of these (of `rows`, if they were read before)."""
    columns = [KEY, "owner", "lang%", "year", "price", "draft", "at", "changed", VECTOR]
    if rows is None:
        quoted = ", ".join('"' + name.replace('"', '""').replace("%", "%%") + '"' for name in columns)
        rows = application.run(f"SELECT {quoted} FROM {{schema}}.{{table}} ORDER BY 1".replace('{"', '{{"'))
    return [tuple(str(row[columns.index(name)]) for name in names or columns) for row in rows]


def scored(gallery: Gallery, application: Application) -> list[list[float]]:
    """Scores of all items by the newest model's queries, in the order of the application's ids."""
    found = gallery.search(QUERIES, COUNT, SECOND.fingerprint)
    return [[{hit.id: hit.score for hit in line}[name] for name in application.ids] for line in found]


def check(gallery: Gallery, application: Application, layout: str, new: int) -> None:
    """The gallery is what it should be, when the first `new` rows have new vectors."""
    first = {1: COUNT - new} if new < COUNT else {}
    assert gallery.store.counts() == {**first, **({2: new} if new else {})}
    assert gallery.verify() == []
    # `oldest` takes the rows in the order of their ids, which for text is not the order of the numbers.
    names = sorted(application.ids) if application.id_type == "text" else application.ids
    np.testing.assert_allclose(
        scored(gallery, application), brute_force(layout, new, names, application.ids), atol=1e-5
    )


def brute_force(layout: str, new: int, names: list[str] | None = None, ids: list[str] | None = None) -> np.ndarray:
    rows = padded(set())
    chosen = list(range(new)) if names is None or ids is None else [ids.index(name) for name in names[:new]]
    rows[chosen] = NEW_VECTORS[chosen]
    if layout == "same-column":
        rows[:, OLD:] = 0
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores: np.ndarray = QUERIES @ rows.T
    return scores
