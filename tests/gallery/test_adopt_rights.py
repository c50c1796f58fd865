"""Roles with few rights, tables in use, filters on columns."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from tests.gallery.applications import KEY, NAME, SECOND, TABLE, VECTOR, Application, backfilled
from tests.gallery.galleries import COUNT, NEW_VECTORS

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery
from nobackfill.gallery.adopting import abandon, plan_adoption
from nobackfill.gallery.filters import matches, parse_filter
from nobackfill.gallery.stores import adopted_ddl
from nobackfill.gallery.stores.adopted_layout import side_schema


@pytest.fixture
def application(server: str) -> Iterator[Application]:
    made = Application(server)
    yield made
    made.close()


def test_a_role_without_rights_gets_one_sentence_for_its_administrator(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"role {application.schema}"
    named = sql.Identifier(role).as_string(None)
    application.connection.execute(f"CREATE ROLE {named} LOGIN")
    application.run(f"GRANT USAGE ON SCHEMA {{schema}} TO {named}")
    application.run(f"GRANT SELECT, UPDATE ON {{schema}}.{{table}} TO {named}")
    monkeypatch.setenv("PGOPTIONS", f"-c role={role}".replace(" ", "\\ ").replace("-c\\ ", "-c "))
    with pytest.raises(GalleryError, match="an administrator has to run: CREATE SCHEMA") as caught:
        application.adopt()
    run_as_told(application, str(caught.value))
    gallery = application.adopt()  # goes on
    assert 0 < gallery.status().total < COUNT  # row security holds for this role
    with pytest.raises(GalleryError, match="an administrator has to run: ALTER TABLE") as caught:
        gallery.upgrade(SECOND, application.embed, sample=20)
    run_as_told(application, str(caught.value))
    with pytest.raises(GalleryError, match="an administrator has to run: CREATE INDEX CONCURRENTLY") as caught:
        gallery.upgrade(SECOND, application.embed, sample=20)
    run_as_told(application, str(caught.value))
    gallery.upgrade(SECOND, application.embed, sample=20)
    backfilled(gallery, application)
    assert gallery.status().items == (0, gallery.status().total)
    with pytest.raises(GalleryError, match="an administrator has to run: ALTER TABLE") as caught:
        abandon(gallery.store)
    run_as_told(application, str(caught.value))
    monkeypatch.delenv("PGOPTIONS")
    assert not application.run("SELECT 1 FROM pg_namespace WHERE nspname = %s", side_schema(application.schema, TABLE))
    application.connection.execute(f"DROP OWNED BY {named}; DROP ROLE {named}")


def run_as_told(application: Application, message: str) -> None:
    assert "\n" not in message
    statements = message.partition("has to run: ")[2].rpartition(";")[0]
    for statement in statements.split("; "):
        application.connection.execute(statement)


def test_changes_wait_for_a_lock_shortly_and_again(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, waits = application.adopt(), list[float]()
    done = threading.Event()

    def read() -> None:  # another client of the application
        with psycopg.connect(application.server, autocommit=True) as other:
            statement = sql.SQL("SELECT count(*) FROM {}.{}").format(
                application.names["schema"], application.names["table"]
            )
            while not done.is_set():
                started = time.monotonic()
                other.execute(statement)
                waits.append(time.monotonic() - started)
                time.sleep(0.002)

    with psycopg.connect(application.server) as holder:
        holder.execute(
            sql.SQL("SELECT count(*) FROM {}.{}").format(application.names["schema"], application.names["table"])
        )
        reader = threading.Thread(target=read)
        upgrade = threading.Thread(target=gallery.store.add_generation, args=(2, 9))
        reader.start()
        upgrade.start()
        time.sleep(1)
        assert upgrade.is_alive()  # a long transaction is in its way
        holder.rollback()
        upgrade.join(30)
    done.set()
    reader.join()
    assert not upgrade.is_alive()
    assert gallery.store.table().adoption.dims == {2: 9}  # type: ignore[attr-defined]
    assert max(waits) < 0.5  # a lock that waits its turn would have stopped the reader for the whole second
    monkeypatch.setattr(adopted_ddl, "PATIENCE", 0.1)
    with psycopg.connect(application.server) as holder:
        holder.execute(
            sql.SQL("SELECT count(*) FROM {}.{}").format(application.names["schema"], application.names["table"])
        )
        with pytest.raises(GalleryError, match="was locked by others for 0 s; nothing was changed"):
            gallery.store.add_generation(3, 12)
    assert gallery.store.table().adoption.dims == {2: 9}  # type: ignore[attr-defined]


KEYS = ["lang%", "year", "price", "draft", "at", "owner", "none of these"]
SCALARS = st.sampled_from(["en", "de", "", "NaN", 2003, 2003.0, 2003.5, 0.3, 1, 1.0, True, False, None, -(2**40)])
BOUNDS = st.dictionaries(st.sampled_from([">=", ">"]), st.sampled_from([0.3, 1, 2003, 2003.5]), min_size=1, max_size=1)
CONDITIONS = st.one_of(
    SCALARS,
    st.builds(lambda values: {"in": values}, st.lists(SCALARS, max_size=3)),
    BOUNDS,
    st.just({"<=": 2003}),
    st.builds(lambda low: {**low, "<": 2030}, BOUNDS),
)
FILTERS = st.dictionaries(st.sampled_from(KEYS), CONDITIONS, max_size=2).flatmap(
    lambda some: st.one_of(
        st.just(some),
        st.dictionaries(st.sampled_from(KEYS), CONDITIONS, max_size=2).map(lambda no: {**some, "not": no}),
    )
)


@pytest.fixture(scope="module")
def half(server: str) -> Iterator[tuple[Gallery, Application]]:
    """A table whose first rows have new vectors."""
    made = Application(server)
    gallery = made.adopt()
    gallery.upgrade(SECOND, made.embed, sample=20)
    backfilled(gallery, made, 25)
    yield gallery, made
    made.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_filter=FILTERS)
def test_filters_find_what_they_mean(half: tuple[Gallery, Application], given_filter: dict[str, Any]) -> None:
    store, where = half[0].store, parse_filter(json.dumps(given_filter))
    payloads = store.payloads(half[1].ids)
    assert set(payloads["0"]) == {"lang%", "year", "price", "draft", "at", "changed", "owner"}
    expected = {name for name in half[1].ids if matches(where, payloads[name])}
    assert {name for number in (1, 2) for names in store.ids(number, 7, where) for name in names} == expected
    assert sum(store.counts(where).values()) == len(expected)
    queries = {1: NEW_VECTORS[:1, :6], 2: NEW_VECTORS[:1]}
    found = store.search(queries, COUNT, where)
    assert {name for nearest in found.values() for name in nearest.ids[0]} == expected


def test_a_chosen_payload(application: Application) -> None:
    plan = plan_adoption(application.url, NAME, vector_column=VECTOR, id_column=KEY, payload_columns=("year",))
    store = plan.carry_out()
    assert store.payloads(["4"]) == {"4": {"year": 2004}}
    application.run("ALTER TABLE {schema}.{table} DROP COLUMN year")  # the application goes its way
    assert store.payloads(["4"]) == {"4": {}}
    store.close()
