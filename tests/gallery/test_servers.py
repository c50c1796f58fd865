"""What only PostgreSQL or Qdrant can do, or do wrong."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.gallery.galleries import (
    COUNT,
    IDS,
    NEW,
    SECOND,
    answers,
    assert_same,
    embed,
    fresh,
    padded,
    table_name,
    upgraded,
    vectors,
)

from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, open_store
from nobackfill.gallery.stores import qdrant_lease
from nobackfill.gallery.stores.base import UnreachableError
from nobackfill.gallery.stores.postgres_connection import PostgresConnection
from nobackfill.gallery.stores.qdrant_lease import lease


def test_half_precision_in_postgresql(server: str) -> None:
    url = f"{server}#{table_name()}"
    store = open_store(url, halfvec="true")
    gallery, queries = upgraded(store), vectors(NEW, 2, 5)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=30, order="oldest")
    assert_same(answers(gallery, queries, SECOND), queries @ padded(set(IDS[:30])).T, atol=2e-3)
    assert gallery.verify() == []
    again = Gallery.open(url)
    again.backfill(embed, fingerprint=SECOND.fingerprint)  # the table says that it holds half precision
    assert again.store.counts() == {2: COUNT}
    again.store.close()
    store.close()


def test_an_opened_gallery_goes_on_with_the_connection_that_found_it(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server}#{table_name()}"
    made = open_store(url)
    fresh(made)
    made.close()
    opened, connect = list[object](), PostgresConnection.connect

    def counted(self: PostgresConnection, *, autocommit: bool) -> object:
        opened.append(self)
        return connect(self, autocommit=autocommit)

    monkeypatch.setattr(PostgresConnection, "connect", counted)
    gallery = Gallery.open(url)
    assert gallery.count() == COUNT
    assert len(opened) == 1
    gallery.store.close()
    assert gallery.count() == COUNT  # another use opens it again
    assert len(opened) == 2
    gallery.store.close()


def test_a_lease_on_a_server_goes_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qdrant_client")
    monkeypatch.setattr(qdrant_lease, "WATCH", 0.3)
    store: Any = open_store(f"qdrant:{tmp_path / 'store'}")
    fresh(store)
    with lease(store), pytest.raises(GalleryError, match="another process is changing"), lease(store):
        pass
    with lease(store):
        pass
    store.write("lease", json.dumps({"owner": "dead", "until": time.time() + 0.3}).encode())
    with pytest.raises(GalleryError, match="another process is changing"), lease(store):
        pass
    time.sleep(0.4)
    with lease(store) as check:  # it was not renewed
        assert json.loads(store.read("lease"))["owner"] != "dead"
        check()
        store.write("lease", json.dumps({"owner": "other", "until": time.time() + 30}).encode())
        with pytest.raises(GalleryError, match="lost the lock on this gallery"):
            check()
    assert json.loads(store.read("lease"))["owner"] == "other"  # not ours to take away
    store.close()


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_a_lease_of_a_machine_whose_clock_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: int) -> None:
    pytest.importorskip("qdrant_client")
    monkeypatch.setattr(qdrant_lease, "WATCH", 0.6)
    store: Any = open_store(f"qdrant:{tmp_path / 'store'}")
    fresh(store)
    ended = threading.Event()

    def beat() -> None:  # the owner is alive, and its clock an hour off
        while not ended.wait(0.1):
            store.write("lease", json.dumps({"owner": "alive", "until": time.time() + skew}).encode())

    store.write("lease", json.dumps({"owner": "alive", "until": time.time() + skew}).encode())
    owner = threading.Thread(target=beat)
    owner.start()
    with pytest.raises(GalleryError, match="another process is changing"), lease(store):
        pass
    ended.set()
    owner.join()
    with lease(store) as check:  # its owner is gone
        check()
    assert store.read("lease") is None
    store.close()


def test_of_many_that_take_a_lease_at_once_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qdrant_client")
    store: Any = open_store(f"qdrant:{tmp_path / 'store'}")
    fresh(store)
    together, held = threading.Barrier(4), threading.Barrier(4)
    real = store.read
    looked = set[int]()

    def read(name: str) -> bytes | None:
        data: bytes | None = real(name)
        if threading.get_ident() not in looked:
            looked.add(threading.get_ident())
            together.wait(30)  # all have seen that nobody has it
        return data

    monkeypatch.setattr(store, "read", read)

    def take(_: int) -> bool:
        try:
            with lease(store):
                held.wait(30)
                return True
        except GalleryError:
            held.wait(30)
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, range(4))) == [False, False, False, True]
    store.close()


def test_a_lock_on_a_database_is_lost_with_its_connection(server: str) -> None:
    store: Any = open_store(f"{server}#{table_name()}")
    gallery = upgraded(store)
    made = 0

    def late(ids: list[str]) -> Embedded:
        nonlocal made
        made += 1
        if made == 2:
            statement = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            store.db.rows(statement)
        return embed(ids)

    with pytest.raises(GalleryError, match="lost the lock on this gallery"):
        gallery.backfill(late, fingerprint=SECOND.fingerprint, batch_size=10)
    assert store.counts() == {1: COUNT - 10, 2: 10}
    gallery.backfill(embed, fingerprint=SECOND.fingerprint)
    assert store.counts() == {2: COUNT}
    store.close()


def test_a_server_that_stops_before_it_gives_a_lock_does_not_answer(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = open_store(f"{server}#{table_name()}")
    fresh(store)
    connect = store.db.connect

    def stopped(*, autocommit: bool) -> Any:
        connection = connect(autocommit=autocommit)
        connection.close()
        return connection

    monkeypatch.setattr(store.db, "connect", stopped)
    with pytest.raises(UnreachableError, match="no answer when asked for a lock"), store.lock():
        pass
    store.close()


def test_two_that_create_a_table_at_once(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, together = table_name(), threading.Barrier(2)
    real = PostgresConnection.there

    def there(connection: PostgresConnection, suffix: str) -> bool:
        found = real(connection, suffix)
        if suffix == "_documents":
            together.wait(30)  # both have looked, neither has made anything
        return found

    monkeypatch.setattr(PostgresConnection, "there", there)
    stores = [open_store(f"{server}#{name}") for _ in range(2)]

    def create(store: Any) -> str:
        try:
            store.create()
        except GalleryError as error:
            return str(error)
        return "made"

    with ThreadPoolExecutor(2) as pool:
        ends = sorted(pool.map(create, stores))
    assert ends[1 - ends.index("made")].endswith("exists; choose another name or drop it")
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:se%cret@localhost/db#items",
        "postgresql://me:se/cret@localhost/db#items",
        "postgresql://me:se#cret@localhost/db#items",
        "postgresql://[me:secret@localhost/db#items",
        "qdrant+http://:se/cret@localhost#items",
        "qdrant+http://:secret@localhost:po#items",
    ],
)
def test_no_message_shows_a_password(url: str) -> None:
    with pytest.raises(GalleryError) as caught:
        open_store(url).counts()
    assert "cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_upsert_without_an_answer_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qdrant_client")
    from qdrant_client.http.exceptions import ResponseHandlingException

    monkeypatch.setattr(time, "sleep", lambda _: None)
    store: Any = open_store(f"qdrant:{tmp_path / 'store'}")
    real, calls = store.client.upsert, [0]

    def flaky(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        answer = real(*arguments, **options)  # it arrived, the answer did not
        if calls[0] % 2 and arguments[0] == store.name:
            raise ResponseHandlingException(ConnectionError("reset"))
        return answer

    monkeypatch.setattr(store.client, "upsert", flaky)
    gallery = fresh(store)
    assert store.counts() == {1: COUNT}
    assert gallery.verify() == []
    monkeypatch.setattr(
        store.client, "upsert", lambda *_, **__: (_ for _ in ()).throw(ResponseHandlingException(OSError("x")))
    )
    with pytest.raises(UnreachableError):
        store.write("name", b"")
    store.close()


def test_a_rollback_of_qdrant_takes_a_request_for_many_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qdrant_client")
    monkeypatch.setattr("nobackfill.gallery.stores.qdrant_store.BATCH", COUNT // 3)
    store: Any = open_store(f"qdrant:{tmp_path / 'store'}")
    gallery, sent = upgraded(store), []
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, keep_old=True)
    real = store.client.upsert

    def counted(collection: str, points: list[Any], **options: Any) -> Any:
        sent.append(len(points))
        return real(collection, points, **options)

    monkeypatch.setattr(store.client, "upsert", counted)
    assert store.restore(1) == 0
    assert sent == [COUNT // 3] * 3
    assert store.counts() == {1: COUNT}
    assert gallery.verify() == []
    store.close()


def test_names_of_tables_are_counted_in_bytes_and_may_hold_a_percent_sign(server: str) -> None:
    with pytest.raises(GalleryError, match="the table's name has 52 bytes; expected at most 50"):
        open_store(f"{server}#{'ü' * 26}")
    store = open_store(f"{server}#{'ü' * 25}")
    gallery = upgraded(store)
    assert gallery.verify() == []
    store.close()
    plain, doubled = (open_store(f"{server}#a{sign}b {table_name()[:9]}") for sign in ("%", "%%"))
    gallery, other = upgraded(plain), fresh(doubled)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint, target=20, keep_old=True)
    assert (plain.counts(), doubled.counts()) == ({1: COUNT - 20, 2: 20}, {1: COUNT})
    assert (len(Gallery.open(plain).manifest.generations), len(other.manifest.generations)) == (2, 1)
    gallery.rollback("first")
    assert gallery.verify() == []
    plain.close()
    doubled.close()
