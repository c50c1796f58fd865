"""A collection of Milvus that an application made and goes on using, as a gallery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import COUNT, NEW, NEW_VECTORS, OLD, OLD_VECTORS, SECOND, padded, unit, vectors
from tests.gallery.milvus_applications import PAYLOADS, TYPES, Application, indexed

from nobackfill.cli.app import run
from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, ItemBatch, parse_filter
from nobackfill.gallery.adopting import abandon, plan_adoption
from nobackfill.gallery.filters import matches
from nobackfill.gallery.stores.adopted_milvus_layout import ADOPTION
from nobackfill.gallery.stores.adopted_milvus_rows import AdoptedRows
from nobackfill.gallery.stores.adopted_milvus_store import AdoptedMilvusStore

pytest.importorskip("milvus_lite")
pymilvus = pytest.importorskip("pymilvus")
NAME, NEWER = "minilm", SECOND.model_copy(update={"compatible_with": ("name:minilm",)})
OTHER = unit(np.random.default_rng(9).standard_normal((COUNT, OLD)))
QUERIES = vectors(NEW, 2, 5)


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    made = Application(tmp_path)
    yield made
    made.client.close()


def adopted(application: Application) -> Gallery:
    gallery = Gallery.adopt(application.url, NAME)
    gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
    return gallery


def backfilled(gallery: Gallery, application: Application, target: Any = "all") -> None:
    gallery.backfill(application.embed, fingerprint=NEWER.fingerprint, target=target, order="oldest", batch_size=16)


def check(gallery: Gallery, application: Application, new: set[int]) -> None:
    """Searches by both models equal those of one padded index."""
    rows = padded(set())
    for place in new:
        rows[place] = NEW_VECTORS[place]
    for hits, scores in zip(gallery.search(QUERIES, COUNT, NEWER.fingerprint), QUERIES @ rows.T, strict=True):
        found = {hit.id: hit.score for hit in hits}
        assert found == pytest.approx(dict(zip(application.ids, scores.tolist(), strict=True)), abs=1e-5)
    few = [hit.id for hit in gallery.search(QUERIES[:1], 3, NEWER.fingerprint)[0]]
    assert few == [application.ids[place] for place in np.argsort(-(QUERIES[:1] @ rows.T)[0])[:3]]
    counts = {1: COUNT - len(new), 2: len(new)}
    assert gallery.store.counts() == {number: count for number, count in counts.items() if count}
    best = gallery.search(3.0 * OLD_VECTORS[:1], 1, f"name:{NAME}", where={"year": 2000})[0][0]
    assert (best.id, best.payload) == (application.ids[0], PAYLOADS[0])
    assert gallery.verify() == []


@pytest.mark.parametrize(
    ("kind", "metric", "index"),
    [("int", "COSINE", "HNSW"), ("text", "IP", "FLAT"), ("int", "L2", "AUTOINDEX")],
)
def test_the_whole_life_of_an_adopted_collection(tmp_path: Path, kind: str, metric: str, index: str) -> None:
    application = Application(tmp_path, kind, metric, index)
    before = application.state()
    gallery = Gallery.adopt(application.url, NAME)
    assert gallery.status().items == (COUNT,)
    gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
    check(gallery, application, set())
    backfilled(gallery, application, 20)
    order = [application.ids.index(name) for some in gallery.store.ids(2) for name in some]
    assert len(order) == 20
    check(gallery, application, set(order))
    backfilled(gallery, application)
    gallery.store.close()
    gallery = Gallery.open(application.url)
    check(gallery, application, set(range(COUNT)))
    gallery.switch()
    with pytest.raises(GalleryError, match="no longer served"):
        gallery.search(OLD_VECTORS[:1], 1, f"name:{NAME}")
    gallery.rollback(NAME)
    check(gallery, application, set())
    backfilled(gallery, application, "25%")
    gallery.compact()
    assert application.state()[:2] == before[:2]  # none of the application's rows or fields was touched
    abandon(gallery.store)
    gallery.store.close()
    assert application.state() == before
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]
    with pytest.raises(GalleryError, match="no gallery there"):
        Gallery.open(application.url)
    application.client.close()


def test_what_the_application_does_counts_at_once(application: Application) -> None:
    gallery = adopted(application)
    backfilled(gallery, application)
    client = application.client
    application.put([3, 5], OTHER)
    application.put([4], OLD_VECTORS)  # the same vector
    client.delete("items", ids=[60])
    client.insert("items", [{"key": 7777, "text": OTHER[0].tolist(), "year": 1, "price": 0.0}])
    client.upsert("items", [{"key": 80, "text": (3 * OLD_VECTORS[8]).tolist(), "year": 1, "price": 0.0}])
    assert gallery.store.counts() == {1: 3, 2: COUNT - 3}
    assert gallery.store.counts(parse_filter({"year": 1})) == {1: 1, 2: 1}
    assert {name for some in gallery.store.ids(1) for name in some} == {"30", "50", "7777"}
    assert gallery.store.fetch(["60", "007", "x", "-1", "9" * 30]) == []
    for place in (3, 5):
        best = gallery.search(OTHER[place : place + 1], 1, f"name:{NAME}")[0][0]
        assert (best.id, best.generation) == (application.ids[place], NAME)
        hits = {hit.id: hit for hit in gallery.search(NEW_VECTORS[place][None], COUNT, NEWER.fingerprint)[0]}
        score = float(NEW_VECTORS[place, :OLD] @ OTHER[place])
        assert hits[application.ids[place]].score == pytest.approx(score, abs=1e-5)
        assert "60" not in hits
    assert gallery.verify() == []
    client.delete("items", ids=[7777])
    backfilled(gallery, application)
    assert gallery.store.counts() == {2: COUNT - 1}


def test_old_items_are_found_behind_many_new_ones(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nobackfill.gallery.stores.adopted_milvus_search.CHANGED", 4)
    gallery = adopted(application)
    far = int(np.argmin(OLD_VECTORS @ OLD_VECTORS[0]))
    ids = [name for name in application.ids if name != application.ids[far]]
    gallery.store.replace(ItemBatch(ids, 2, NEW_VECTORS[np.arange(COUNT) != far], []), keep_old=True)
    found = gallery.store.search({1: OLD_VECTORS[:1]}, 1)[1]
    assert found.ids == [[application.ids[far]]]


def test_a_vector_of_an_older_content_is_not_written(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = adopted(application)
    store: Any = gallery.store
    ids = ["10", "20", "30", "40"]
    read = store.versions([*ids, "50", "gone"])
    application.put([2], OTHER)
    application.client.delete("items", ids=[30])
    real = store.connection.put

    def late(*arguments: Any) -> Any:  # between our reading and our writing
        application.put([4], OTHER)
        return real(*arguments)

    looked = AdoptedRows.generations

    def between(self: AdoptedRows, own: Any) -> Any:  # after the row was read, before what is written is known
        found = looked(self, own)
        monkeypatch.setattr(AdoptedRows, "generations", looked)
        application.put([5], OTHER)
        return found

    monkeypatch.setattr(store.connection, "put", late)
    monkeypatch.setattr(AdoptedRows, "generations", between)
    items = ItemBatch([*ids, "50"], 2, NEW_VECTORS[1:6], [], [read[name] for name in [*ids, "50"]])
    assert store.replace(items, keep_old=True) == ["20", "30", "40", "50"]
    assert store.counts() == {1: COUNT - 2, 2: 1}


@pytest.mark.parametrize("keys", [None, ("year", "n")])
def test_filters_are_exact(application: Application, keys: tuple[str, ...] | None) -> None:
    gallery = Gallery.adopt(application.url, NAME, payload_columns=keys)
    known = [{key: value for key, value in each.items() if keys is None or key in keys} for each in PAYLOADS]
    wheres: list[dict[str, Any]] = [
        {"n": 1},
        {"n": True},
        {"n": None},
        {"n": "1"},
        {"n": {"in": [1, "1"]}},
        {"n": {">=": 0}},
        {"not": {"lang": "de"}, "year": {">": 2003, "<": 2006}},
        {"lang": {"in": ["de", "x"]}},
        {"lang": None},
        {"year": {">=": 2003.5}},
        {"year": 2001},
        {"price": {">": 0.125}},
        {"lang": 'd"e'},
        {"a.b[]": 1},
    ]
    for where in wheres:
        wanted = {
            name for name, payload in zip(application.ids, known, strict=True) if matches(parse_filter(where), payload)
        }
        (hits,) = gallery.search(OLD_VECTORS[:1], COUNT, f"name:{NAME}", where=where)
        assert {hit.id for hit in hits} == wanted
        assert gallery.count(where) == len(wanted)
        few = [hit.id for hit in gallery.search(OLD_VECTORS[:1], 3, f"name:{NAME}", where=where)[0]]
        assert few == [hit.id for hit in hits][:3]


@pytest.mark.parametrize("kept", ["none", ADOPTION])
def test_an_adoption_that_was_interrupted_is_begun_again(
    application: Application, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    before = application.state()
    real = AdoptedMilvusStore.write

    def interrupted(self: AdoptedMilvusStore, name: str, data: bytes | None) -> None:
        if name != kept:
            raise KeyboardInterrupt
        real(self, name, data)

    monkeypatch.setattr(AdoptedMilvusStore, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Gallery.adopt(application.url, NAME)
    monkeypatch.undo()
    with pytest.raises(GalleryError, match="no gallery there, or its creation was interrupted"):
        Gallery.open(application.url)
    gallery = Gallery.adopt(application.url, NAME)
    assert gallery.status().items == (COUNT,)
    abandon(gallery.store)
    assert application.state() == before


def test_what_is_refused(application: Application, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="can only be new-column"):
        plan_adoption(application.url, NAME, layout="same-column")
    with pytest.raises(GalleryError, match="no collection 'items'"):
        plan_adoption(f"milvus:{tmp_path / 'none.db'}#items", NAME)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(GalleryError, match="no collection 'other'"):
        plan_adoption(application.url.replace("#items", "#other"), NAME)
    application.client.create_alias("items", "now")
    with pytest.raises(GalleryError, match="an alias; name the collection itself: items"):
        plan_adoption(application.url.replace("#items", "#now"), NAME)
    with pytest.raises(GalleryError, match="no vector named 'v'; choose one with --vector-column: text"):
        plan_adoption(application.url, NAME, vector_column="v")
    gallery = Gallery.adopt(application.url, NAME)
    with pytest.raises(GalleryError, match="belong to the application"):
        gallery.upsert(["1"], OLD_VECTORS[:1], fingerprint=f"name:{NAME}")
    with pytest.raises(GalleryError, match="belong to the application"):
        gallery.delete(["10"])
    with pytest.raises(GalleryError, match="is a gallery already"):
        plan_adoption(application.url, NAME)


@pytest.mark.parametrize(
    ("metric", "kind", "scale", "message"),
    [
        ("L2", "FLOAT_VECTOR", 3, "compared by L2, and a vector has norm 3.000; expected 1"),
        ("IP", "FLOAT_VECTOR", 3, "compared by IP, and a vector has norm 3.000; expected 1"),
        (None, "FLOAT_VECTOR", 1, "has no index"),
    ],
)
def test_collections_that_cannot_be_adopted(
    tmp_path: Path, metric: str | None, kind: str, scale: int, message: str
) -> None:
    client = pymilvus.MilvusClient(str(tmp_path / "store.db"))
    schema = client.create_schema(auto_id=False)
    schema.add_field("key", TYPES.INT64, is_primary=True)
    schema.add_field("text", TYPES[kind], dim=OLD)
    client.create_collection("items", schema=schema, index_params=metric and indexed(client, "FLAT", metric))
    client.insert("items", [{"key": 1, "text": (scale * OLD_VECTORS[0]).tolist()}])
    with pytest.raises(GalleryError, match=message) as caught:
        plan_adoption(f"milvus:{tmp_path / 'store.db'}#items", NAME)
    assert "\n" not in str(caught.value)
    client.close()


def test_the_verbs_show_then_do(application: Application, capsys: pytest.CaptureFixture[str]) -> None:
    before = application.state()
    adopt = ["gallery", "adopt", application.url, "--generation", NAME, "--payload-columns", "year"]
    assert run([*adopt, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert '{"collectionName": "items__nobackfill_adopted__documents"}' in shown
    assert '{"collectionName": "items__nobackfill_adopted__g2"}' in shown
    assert application.state() == before
    assert run(adopt) == 0
    assert f"a gallery of {COUNT} items" in capsys.readouterr().out
    gallery = Gallery.open(application.url)
    gallery.upgrade(NEWER, application.embed, sample=20)
    backfilled(gallery, application, 20)
    assert gallery.store.payloads(["10"]) == {"10": {"year": 2001}}
    assert run(["gallery", "abandon", application.url, "--dry-run"]) == 0
    assert "collections/drop" in capsys.readouterr().out
    assert run(["gallery", "abandon", application.url, "--leave-new", "--yes"]) == 0
    assert sorted(application.client.list_collections()) == ["items", "items__nobackfill_adopted__g2"]
    with pytest.raises(GalleryError, match="'items__nobackfill_adopted__g2' beside it; drop or rename what an earlier"):
        Gallery.adopt(application.url, NAME)
    application.client.rename_collection("items__nobackfill_adopted__g2", "mine")
    assert Gallery.adopt(application.url, NAME).status().items == (COUNT,)
